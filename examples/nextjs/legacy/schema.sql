CREATE TABLE IF NOT EXISTS funnel_sessions (
  id text PRIMARY KEY,
  email text NOT NULL,
  customer_info jsonb,
  products jsonb NOT NULL DEFAULT '[]',
  status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'expired')),
  amount double precision NOT NULL DEFAULT 0,
  current_step text NOT NULL DEFAULT 'checkout',
  upsells_accepted text[] NOT NULL DEFAULT '{}',
  upsells_declined text[] NOT NULL DEFAULT '{}',
  vault_id text,
  transaction_id text,
  payment_token text,
  coupon_code text,
  metadata jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL
);

CREATE INDEX IF NOT EXISTS funnel_sessions_status ON funnel_sessions (status, created_at DESC);
CREATE INDEX IF NOT EXISTS funnel_sessions_email ON funnel_sessions (email);
CREATE INDEX IF NOT EXISTS funnel_sessions_expires_at ON funnel_sessions (expires_at);
