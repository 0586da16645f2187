import { story } from './products';

const bottleWidth = 34;
const gap = 31;

/** A row of bottles, drawn. Decoration: the text beside it says what it is. */
export function Bottles({ product }: { product: string }) {
  const { bottles, look, label } = story(product);
  const shown = Math.min(bottles, 6);
  const columns = Math.min(shown, 3);
  const rows = Math.ceil(shown / 3);
  const width = bottleWidth + (columns - 1) * gap + (rows - 1) * 14;
  return (
    <svg className={`bottles look-${look}`} viewBox={`0 0 ${width} 80`} aria-hidden="true" focusable="false">
      {Array.from({ length: shown }, (_, index) => {
        const row = rows - 1 - Math.floor(index / 3);
        const x = (index % 3) * gap + row * 14;
        return <Bottle key={index} x={x} y={row === 0 ? 9 : 0} label={label} isBehind={row > 0} />;
      })}
    </svg>
  );
}

function Bottle({ x, y, label, isBehind }: { x: number; y: number; label: string; isBehind: boolean }) {
  return (
    <g transform={`translate(${x} ${y})`} opacity={isBehind ? 0.55 : 1}>
      <rect className="bottle-cap" x="9" y="0" width="16" height="9" rx="2.500" />
      <path className="bottle-glass" d="M10 9h14v4c0 4 8 5 8 12v38a6 6 0 0 1-6 6H8a6 6 0 0 1-6-6V25c0-7 8-8 8-12z" />
      <rect className="bottle-label" x="2" y="31" width="30" height="25" />
      <path className="bottle-drop" d="M17 34c2.600 3.200 3.800 4.800 3.800 6.700a3.800 3.800 0 0 1-7.600 0c0-1.900 1.200-3.500 3.800-6.700z" />
      <text className="bottle-text" x="17" y="53" textAnchor="middle">
        {label}
      </text>
      <path className="bottle-shine" d="M6 26v36" />
    </g>
  );
}
