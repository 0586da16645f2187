export interface CustomerInfo {
  firstName?: string;
  lastName?: string;
  phone?: string;
  address?: string;
  city?: string;
  state?: string;
  zipCode?: string;
  country?: string;
}

export interface Product {
  id: string;
  name: string;
  price: number;
  quantity: number;
}

export interface UpsellDetails {
  step: number;
  productCode: string;
  amount: number;
  bottles: number;
  transactionId: string;
  timestamp: string;
}

export interface BillingInfo {
  address: string;
  city: string;
  state: string;
  zipCode: string;
  country: string;
}

export interface ShippingInfo extends BillingInfo {
  firstName: string;
  lastName: string;
}
