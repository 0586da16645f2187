import { useEffect, useRef, type ReactNode } from 'react';

let isFirst = true;

/** A step's heading. It takes the focus when the step changes, so that keyboards and screen readers follow. */
export function StepHeading({ children }: { children: ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    if (isFirst) {
      // The page has just been opened: the focus is where the browser puts it.
      isFirst = false;
      return;
    }
    heading.current?.focus({ preventScroll: true });
    window.scrollTo({ top: 0 });
  }, []);
  return (
    <h1 ref={heading} tabIndex={-1}>
      {children}
    </h1>
  );
}
