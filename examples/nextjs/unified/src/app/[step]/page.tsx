import { notFound } from 'next/navigation';
import { connection } from 'next/server';

import { Funnel } from '@/components/funnel';

const steps = ['checkout', 'processing', 'upsell-1', 'upsell-2', 'success'];

/** Each step has its address, and all are one page: going from one to the next asks nothing of the shop, so it works offline. */
export default async function StepPage({ params }: { params: Promise<{ step: string }> }) {
  const { step } = await params;
  if (!steps.includes(step)) notFound();
  // The server's address is that of the machine on which the shop runs, not of the one on which it was built.
  await connection();
  return <Funnel url={process.env.THROUGHLINE_URL!} />;
}
