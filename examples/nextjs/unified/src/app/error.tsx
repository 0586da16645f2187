'use client';

/** The session could not be opened: this browser has nothing of it, and the server can't be asked. */
export default function OpeningFailed({ reset }: { reset: () => void }) {
  return (
    <>
      <h1>The shop can’t be reached just now</h1>
      <p className="error" role="alert">
        Nothing is lost. Please try again in a moment.
      </p>
      <button type="button" onClick={reset}>
        Try again
      </button>
    </>
  );
}
