import type { Metadata } from 'next';
import type { ReactNode } from 'react';

import './globals.css';

export const metadata: Metadata = {
  title: 'Fitspresso',
  description: 'Stirs into the coffee you already make.',
};

export default function RootLayout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>
        <header className="site-header">
          <p className="brand">Fitspresso</p>
        </header>
        <main>{children}</main>
      </body>
    </html>
  );
}
