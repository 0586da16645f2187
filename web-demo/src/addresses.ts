/** Where the server and the demo payment service are: beside this page, unless the page's address says otherwise. */

const query = new URLSearchParams(location.search);

export const serverUrl = query.get('server') ?? beside(import.meta.env.VITE_SERVER_PORT, 8787);
export const paymentUrl = query.get('payments') ?? beside(import.meta.env.VITE_PAYMENT_PORT, 8788);

function beside(port: string | undefined, usual: number): string {
  return `${location.protocol}//${location.hostname}:${port ?? usual}`;
}
