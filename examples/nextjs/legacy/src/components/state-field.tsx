import { states } from '@/lib/states';

interface StateFieldProps {
  label: string;
  name: string;
  value: string;
  onChange: (value: string) => void;
  onBlur?: () => void;
}

export function StateField({ label, name, value, onChange, onBlur }: StateFieldProps) {
  return (
    <div className="field">
      <label htmlFor={name}>{label}</label>
      <select id={name} name={name} required value={value} onChange={(event) => onChange(event.target.value)} onBlur={onBlur}>
        <option value="">Choose…</option>
        {states.map(([code, title]) => (
          <option key={code} value={code}>
            {title}
          </option>
        ))}
      </select>
    </div>
  );
}
