/**
 * Checkout sessions in React, 18 or newer.
 *
 * ```tsx
 * <SessionProvider open={() => openSession({ url })} fallback={<p>Opening…</p>}>
 *   <Checkout />
 * </SessionProvider>
 *
 * function Email() {
 *   const email = useSelector((session) => session.email);
 *   const checkout = useCheckout();
 *   return <input value={email ?? ''} onChange={(event) => checkout.setEmail(event.target.value)} />;
 * }
 * ```
 *
 * @packageDocumentation
 */
export { SessionProvider, type SessionProviderProps } from './react/provider.js';
export {
  useCheckout,
  useRemaining,
  useSelector,
  useSession,
  useSessionEvent,
  useSyncStatus,
  useTimeline,
} from './react/hooks.js';
