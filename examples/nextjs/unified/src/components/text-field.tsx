import type { InputHTMLAttributes } from 'react';

interface TextFieldProps extends Omit<InputHTMLAttributes<HTMLInputElement>, 'onChange'> {
  label: string;
  hint?: string;
  onChange: (value: string) => void;
}

export function TextField({ label, hint, onChange, ...input }: TextFieldProps) {
  const hintId = hint && `${input.name}-hint`;
  return (
    <div className="field">
      <label htmlFor={input.name}>{label}</label>
      <input id={input.name} aria-describedby={hintId} onChange={(event) => onChange(event.target.value)} {...input} />
      {hint && (
        <p className="hint" id={hintId}>
          {hint}
        </p>
      )}
    </div>
  );
}
