import { UpsellPage } from '@/components/upsell-page';

export default function SecondUpsellPage() {
  return <UpsellPage step={2} title="One last thing for quieter nights" next="success" />;
}
