import { UpsellPage } from '@/components/upsell-page';

export default function FirstUpsellPage() {
  return <UpsellPage step={1} title="Wait, your order isn’t complete yet" next="upsell-2" />;
}
