import { TextField } from './text-field';

/** Stands in for the field of the gateway. What is typed goes nowhere but into a token. */
export function CardField({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  return (
    <TextField
      label="Card number"
      hint="This is an example: 4242 4242 4242 4242 works, 4000 0000 0000 0002 is declined."
      name="card"
      inputMode="numeric"
      autoComplete="off"
      required
      value={value}
      onChange={onChange}
    />
  );
}
