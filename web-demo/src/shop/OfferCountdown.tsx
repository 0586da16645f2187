import { atMost, clockFace, inWords, offerSteps } from './time-left';

/** How long the step's offers are open still. The clock is silent; what is read out changes a few times only. */
export function OfferCountdown({ leftMs }: { leftMs: number }) {
  return (
    <p className="countdown">
      <span>These prices hold for another</span>
      <span role="timer" className="clock">
        <span aria-hidden="true">{clockFace(leftMs)}</span>
        <span className="visually-hidden">{inWords(leftMs)}</span>
      </span>
      <span className="hint">Then your order goes on as it is.</span>
      <span className="visually-hidden" role="status">
        Less than {atMost(leftMs, offerSteps)} left
      </span>
    </p>
  );
}
