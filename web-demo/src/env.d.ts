/// <reference types="vite/client" />

interface ImportMetaEnv {
  readonly VITE_SERVER_PORT?: string;
  readonly VITE_PAYMENT_PORT?: string;
}
