//! Sessions, commands and funnels by chance, and by one number: the same number gives the same again.

use throughline_core::funnel::{
    Coupon, Discount, Lifetime, Offer, Product, Requirement, Shipping, Step, StepKind, Tax,
};
use throughline_core::json::{JsonObject, JsonValue};
use throughline_core::{
    Address, ClaimedItem, ClaimedUpsell, Claims, ClientId, Command, Context, Create, Customer, Funnel, FunnelChoice,
    Hold, ItemRequest, LegacyEntries, LentClaim, Money, OfferId, OfferState, Origin, Rate, Record, Rejection, Role,
    SessionId, Source, State, Status, StepId, TimeSpan, Timestamp, decide, evolve,
};

/// Noon in the year of the fixtures.
pub const START: Timestamp = Timestamp::from_millis(1_795_165_200_000);

/// SplitMix64: a small generator of random numbers with a seed.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    pub fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.percent(50).then(|| value(self))
    }
}

pub fn default_funnel() -> Funnel {
    toml::from_str(include_str!("../../funnels/default.toml")).unwrap()
}

pub fn session_id() -> SessionId {
    SessionId::generate(START, [7; 16])
}

pub fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

/// Text that must never reach a browser carries this.
pub const CANARY: &str = "canary";

/// A valid funnel: one to three forms, the payment, none to three steps with offers, the end.
pub fn funnel(dice: &mut Dice) -> Funnel {
    let price = |dice: &mut Dice| Money::from_minor(dice.pick(&[0, 1, 99, 7900, 17700, 10_000_000_000]));
    let catalogue: Vec<Product> = (0..1 + dice.below(4))
        .map(|n| Product {
            id: format!("product-{n}").try_into().unwrap(),
            name: format!("Product {n}"),
            price: price(dice),
            description: dice.maybe(|_| "for tests".to_owned()),
        })
        .collect();
    let coupons = (0..dice.below(3))
        .map(|n| Coupon {
            code: format!("SAVE{n}"),
            discount: match dice.percent(50) {
                true => Discount::Percent(Rate::from_hundredths_of_percent(dice.below(10_001) as u32)),
                false => Discount::Amount(price(dice)),
            },
        })
        .collect();
    let forms = 1 + dice.below(3);
    let offer_steps = dice.below(4);
    let mut offers = Vec::new();
    let names: Vec<StepId> = (0..forms)
        .map(|n| format!("form-{n}"))
        .chain(["payment".to_owned()])
        .chain((0..offer_steps).map(|n| format!("offer-{n}")))
        .chain(["end".to_owned()])
        .map(|name| StepId::try_from(name).unwrap())
        .collect();
    let requirements = ["email", "products", "coupon", "customer.phone", "customer.billing.state"];
    let mut steps = Vec::new();
    for (index, id) in names.iter().enumerate() {
        let kind = match index as u64 {
            n if n < forms => StepKind::Form,
            n if n == forms => StepKind::Payment,
            n if n <= forms + offer_steps => StepKind::Offer,
            _ => StepKind::Terminal,
        };
        let mut made = Vec::new();
        if kind == StepKind::Offer {
            for _ in 0..dice.below(3) {
                let offer: OfferId = format!("OFFER{}", offers.len()).try_into().unwrap();
                offers.push(Offer {
                    id: offer.clone(),
                    product: dice.pick(&catalogue).id,
                    name: "An offer".to_owned(),
                    price: price(dice),
                    description: None,
                });
                made.push(offer);
            }
        }
        let next = match kind {
            StepKind::Terminal => Vec::new(),
            _ => vec![names[index + 1].clone()],
        };
        let back = match kind {
            StepKind::Form if index > 0 => vec![names[index - 1].clone()],
            StepKind::Payment => vec![names[0].clone()],
            StepKind::Offer if index as u64 > forms + 1 && dice.percent(50) => vec![names[index - 1].clone()],
            _ => Vec::new(),
        };
        let mut requires: Vec<Requirement> = match kind {
            StepKind::Payment => {
                let wanted = requirements.iter().filter(|_| dice.percent(40));
                wanted.map(|name| Requirement::try_from((*name).to_owned()).unwrap()).collect()
            }
            StepKind::Offer | StepKind::Terminal => vec![Requirement::Payment],
            StepKind::Form => Vec::new(),
        };
        if kind == StepKind::Terminal && dice.percent(30) {
            requires.push(Requirement::OffersAnswered);
        }
        let time_limit = (kind == StepKind::Offer && dice.percent(50)).then(|| TimeSpan::from_millis(600_000));
        steps.push(Step { id: id.clone(), kind, next, back, requires, offers: made, time_limit });
    }
    let lifetime = match dice.percent(50) {
        true => Lifetime::default(),
        false => Lifetime {
            default: TimeSpan::from_millis(3_600_000),
            max: TimeSpan::from_millis(7_200_000),
            warning: TimeSpan::from_millis(60_000),
            idle: dice.percent(50).then(|| TimeSpan::from_millis(600_000)),
        },
    };
    let states = ["CA", "TX", "ny"];
    let rates = states
        .iter()
        .filter(|_| !dice.0.is_multiple_of(3))
        .map(|name| ((*name).to_owned(), Rate::from_hundredths_of_percent(725)));
    let rates = rates.collect();
    let funnel = Funnel {
        id: "generated".to_owned().try_into().unwrap(),
        version: 1 + dice.below(3) as u32,
        name: "Generated".to_owned(),
        currency: "EUR".to_owned().try_into().unwrap(),
        lifetime,
        shipping: Shipping { flat: price(dice), free_from: dice.maybe(price) },
        tax: Tax { rates },
        catalogue,
        coupons,
        offers,
        steps,
    };
    assert_eq!(funnel.problems(), [], "the generator makes valid funnels");
    funnel
}

fn text(dice: &mut Dice) -> String {
    let long = "x".repeat(201);
    let choices = ["", "Ada", "Łukasz", "李 小龙", "O'Brien", "a\u{0}b", "\"quoted\\\"", "CA", "ny", long.as_str()];
    let limit = if dice.percent(90) { 5 } else { choices.len() as u64 };
    choices[dice.below(limit) as usize].to_owned()
}

fn address(dice: &mut Dice) -> Address {
    Address {
        first_name: dice.maybe(text),
        last_name: None,
        address: dice.maybe(text),
        city: dice.maybe(text),
        state: Some(dice.pick(&["CA", "NY", "ny", "ZZ", ""]).to_owned()),
        zip_code: dice.maybe(text),
        country: dice.maybe(|_| "US".to_owned()),
    }
}

fn customer(dice: &mut Dice) -> Customer {
    Customer {
        first_name: dice.maybe(text),
        last_name: dice.maybe(text),
        phone: dice.maybe(|_| "555-0100".to_owned()),
        billing: dice.maybe(address),
        shipping: dice.maybe(address),
    }
}

pub fn json(dice: &mut Dice, depth: u64) -> JsonValue {
    match dice.below(if depth == 0 { 6 } else { 8 }) {
        0 => JsonValue::Null,
        1 => JsonValue::Bool(dice.percent(50)),
        2 => JsonValue::Integer(dice.pick(&[0, -1, 1, (1 << 53) - 1, -(1 << 53) + 1])),
        3 => JsonValue::from(dice.pick(&[0.5, -1e300, 1e-7, 19.99])),
        4 | 5 => JsonValue::String(text(dice)),
        6 => JsonValue::Array((0..dice.below(3)).map(|_| json(dice, depth - 1)).collect()),
        _ => JsonValue::Object(object(dice, depth - 1)),
    }
}

pub fn object(dice: &mut Dice, depth: u64) -> JsonObject {
    (0..dice.below(4)).map(|_| (dice.pick(&["a", "b", "utm", "\"", "é"]).to_owned(), json(dice, depth))).collect()
}

fn claims(dice: &mut Dice) -> Claims {
    Claims {
        status: dice.pick(&[Status::Pending, Status::Processing, Status::Completed, Status::Failed, Status::Expired]),
        step: dice.pick(&["checkout", "upsell-1", "offer-0", "success"]).to_owned().try_into().unwrap(),
        amount: Money::from_minor(dice.pick(&[0, 1, 7900])),
        products: (0..dice.below(3))
            .map(|_| ClaimedItem {
                id: dice.pick(&["fitspresso-1-pack", "product-0", "gone", ""]).to_owned(),
                name: dice.pick(&["", "A bottle", "Two\u{7} bottles"]).to_owned(),
                price: Money::from_minor(dice.pick(&[0, 1, 7900, (1 << 53) - 1])),
                quantity: dice.pick(&[0, 1, 2, 4000]),
            })
            .collect(),
        accepted: (0..dice.below(2))
            .map(|_| ClaimedUpsell {
                code: dice.pick(&["RC6", "OFFER0", "unknown"]).to_owned(),
                amount: dice.maybe(|_| Money::from_minor(5)),
                transaction_id: dice.maybe(|_| format!("{CANARY}-claimed-charge")),
            })
            .collect(),
        declined: (0..dice.below(2)).map(|_| dice.pick(&["SG6", "OFFER1"]).to_owned()).collect(),
        vault_id: dice.maybe(|_| format!("{CANARY}-claimed-vault")),
        transaction_id: dice.maybe(|_| format!("{CANARY}-claimed-transaction")),
        created_at: dice
            .maybe(|dice| Timestamp::from_millis(START.as_millis() - 3_600_000 + dice.below(9_000_000) as i64)),
        updated_at: dice.maybe(|_| START),
        expires_at: dice.maybe(|dice| Timestamp::from_millis(START.as_millis() + dice.below(9_000_000) as i64)),
    }
}

fn items(dice: &mut Dice, funnel: &Funnel) -> Vec<ItemRequest> {
    let ids = funnel.catalogue.iter().map(|product| product.id.clone()).collect::<Vec<_>>();
    (0..dice.below(3))
        .map(|_| ItemRequest {
            id: if dice.percent(95) { dice.pick(&ids) } else { "unheard-of".to_owned().try_into().unwrap() },
            quantity: if dice.percent(95) { 1 + dice.below(3) as u32 } else { dice.pick(&[0, 999, 1000]) },
            name: dice.percent(5).then(|| dice.pick(&["A bottle", "", "Two\u{7} bottles"]).to_owned()),
            price: dice.percent(8).then(|| Money::from_minor(dice.pick(&[-1, 0, 5, 10_000_000_001]))),
        })
        .collect()
}

/// Any command, sensible or not.
pub fn any_command(dice: &mut Dice, state: Option<&State>, funnel: &Funnel) -> Command {
    let mut offers: Vec<OfferId> = funnel.offers.iter().map(|offer| offer.id.clone()).collect();
    offers.push("NONE".to_owned().try_into().unwrap());
    let mut steps: Vec<StepId> = funnel.steps.iter().map(|step| step.id.clone()).collect();
    steps.push("nowhere".to_owned().try_into().unwrap());
    let owed = state.map_or(Money::ZERO, |state| state.session.amount);
    match dice.below(21) {
        0 => Command::Create(Box::new(create(dice, funnel))),
        1 => Command::SetEmail {
            email: dice.pick(&["ada@example.com", "用户@例子.广告", "", "nonsense"]).to_owned()
        },
        2 => Command::SetCustomer { customer: Box::new(customer(dice)) },
        3 => Command::SetItems { items: items(dice, funnel) },
        4 => Command::SetCoupon {
            code: dice.maybe(|dice| dice.pick(&["SAVE10", "save0", " SAVE1 ", "nope", ""]).to_owned()),
        },
        5 => Command::SetAdjustments {
            discount: dice.maybe(|dice| Money::from_minor(dice.pick(&[0, 100, 1_000_000, -1]))),
            shipping: dice.maybe(|_| Money::from_minor(500)),
            tax: dice.maybe(|dice| Money::from_minor(dice.pick(&[0, 77, 10_000_000_001]))),
        },
        6 => Command::GoToStep { step: dice.pick(&steps) },
        7 => Command::BeginProcessing {},
        8 => Command::RecordPayment {
            transaction_id: dice.pick(&["canary-t1", "canary-t2", ""]).to_owned(),
            amount: if dice.percent(80) { owed } else { owed.plus(Money::from_minor(1)) },
            vault_id: dice.maybe(|_| format!("{CANARY}-vault")),
            customer_id: dice.maybe(|_| "customer".to_owned()),
            payment_token: dice.maybe(|_| format!("{CANARY}-token")),
        },
        9 => {
            Command::FailPayment { code: "card_declined".to_owned(), message: dice.pick(&["Declined.", ""]).to_owned() }
        }
        10 => Command::AcceptUpsell { offer: dice.pick(&offers) },
        11 => Command::DeclineUpsell { offer: dice.pick(&offers) },
        12 => {
            let offer = dice.pick(&offers);
            let made = state.and_then(|state| state.session.upsell(&offer));
            let amount = made.map_or(Money::ZERO, |made| made.price.plus(made.tax));
            let amount = if dice.percent(80) { amount } else { Money::from_minor(3) };
            Command::RecordUpsellCharge {
                offer,
                transaction_id: dice.pick(&["canary-c1", "canary-c2"]).to_owned(),
                amount,
            }
        }
        13 => Command::FailUpsellCharge {
            offer: dice.pick(&offers),
            code: "insufficient_funds".to_owned(),
            message: "Not enough.".to_owned(),
        },
        14 => Command::SetMetadata { metadata: object(dice, 3) },
        15 => Command::Extend { ttl_ms: dice.maybe(|dice| dice.pick(&[0, 60_000, 90_000_000, u32::MAX])) },
        // Without another throw of the dice, so that all other walks stay as they are.
        16 if dice.0.is_multiple_of(2) => Command::Import { legacy: Box::new(entries(dice.0, funnel)), funnel: None },
        16 if dice.0 % 3 == 1 => Command::SetPaymentReferences {
            transaction_id: (dice.0 % 5 < 2).then(|| format!("{CANARY}-t{}", dice.0 % 2)),
            vault_id: (dice.0 % 7 < 3).then(|| format!("{CANARY}-vault")),
            customer_id: None,
            payment_token: (dice.0 % 11 < 5).then(|| format!("{CANARY}-token")),
        },
        16 => Command::Expire {},
        17 => Command::ConfirmClaims {
            transaction_id: dice.maybe(|_| format!("{CANARY}-confirmed")),
            amount: dice.maybe(|dice| Money::from_minor(dice.below(20_000) as i64)),
            vault_id: None,
            customer_id: None,
            charges: vec![],
        },
        // Without another throw of the dice, so that all other walks stay as they are.
        18 if dice.0.is_multiple_of(3) => Command::RevokeAccess {},
        18 if dice.0 % 9 == 2 => {
            let claim = Some(format!("digest-{CANARY}-lent"));
            Command::RevokeToken {
                family: Some("family".to_owned()),
                claim,
                until: START.plus(TimeSpan::from_hours(1)),
            }
        }
        18 if dice.0 % 3 == 1 => {
            let hold = Hold { reason: "invoices are kept".to_owned(), until: None };
            Command::SetHold { hold: dice.0.is_multiple_of(2).then_some(hold) }
        }
        18 => Command::RefuteClaims {},
        19 => {
            let is_lent = dice.0.is_multiple_of(5);
            let claim = dice.maybe(|_| lent_claim("family"));
            // As many throws of the dice as ever, so that all other walks stay as they are.
            let family = dice.maybe(|_| "lent").unwrap_or("family");
            if is_lent { Command::LendClaim { claim: lent_claim(family) } } else { Command::HandOff { claim } }
        }
        _ if dice.percent(15) => Command::Erase {},
        _ => Command::SetMetadata { metadata: JsonObject::from([("k".to_owned(), json(dice, 2))]) },
    }
}

/// A row of a shop that did not know the rules: paid or not, with offers answered as it liked.
fn entries(seed: u64, funnel: &Funnel) -> LegacyEntries {
    let words = ["pending", "processing", "completed", "failed", "expired"];
    let steps = ["checkout", "payment_processing", "upsell-1", "success", "failed"];
    let at = START.plus(TimeSpan::from_millis((seed % 100_000) as i64)).to_string();
    let row = serde_json::json!({
        "email": "imported@example.com", "status": words[(seed / 7 % 5) as usize], "current_step": steps[(seed / 35 % 5) as usize],
        "transaction_id": (seed / 175).is_multiple_of(2).then(|| format!("{CANARY}-imported")), "payment_token": CANARY,
        "products": [{"id": funnel.catalogue[0].id, "name": "One", "price": 79, "quantity": 1}],
        "upsells_accepted": ["RC6"], "upsells_declined": ["RC12"], "updated_at": at,
    });
    LegacyEntries { database: serde_json::from_value(row).unwrap(), ..LegacyEntries::default() }
}

fn lent_claim(family: &str) -> LentClaim {
    let until = START.plus(TimeSpan::from_hours(1));
    LentClaim {
        digest: format!("digest-{CANARY}-lent"),
        until,
        family: family.to_owned(),
        issued_by: Some("a3f20c3c".to_owned()),
    }
}

pub fn create(dice: &mut Dice, funnel: &Funnel) -> Create {
    Create {
        email: dice.maybe(|_| "ada@example.com".to_owned()),
        customer: dice.maybe(customer).filter(|_| dice.percent(80)),
        products: items(dice, funnel),
        coupon_code: (dice.percent(20)).then(|| dice.pick(&["SAVE10", "SAVE0", "nope"]).to_owned()),
        metadata: object(dice, 2),
        funnel: dice.maybe(|dice| FunnelChoice { id: funnel.id.clone(), version: dice.maybe(|_| funnel.version) }),
        source: dice.maybe(|dice| dice.pick(&[Source::Api, Source::Client, Source::Migration, Source::Webhook])),
        ttl_ms: dice.maybe(|dice| dice.pick(&[1_000_000, 10_000_000])),
        claims: dice.percent(15).then(|| claims(dice)),
    }
}

/// A command that leads on, most of the time: so that walks get as far as the end.
pub fn likely_command(dice: &mut Dice, state: Option<&State>, funnel: &Funnel) -> (Role, Command) {
    let Some(state) = state else {
        let role = dice.pick(&[Role::Browser, Role::Service]);
        return (role, Command::Create(Box::new(create(dice, funnel))));
    };
    let session = &state.session;
    let open = session.upsells.iter().find(|upsell| upsell.state == OfferState::Offered);
    let accepted = session.upsells.iter().find(|upsell| upsell.state == OfferState::Accepted);
    let step = funnel.step(&session.current_step);
    match session.status {
        _ if session.claims.is_some() && dice.percent(50) => {
            let transaction_id = Some(format!("{CANARY}-confirmed"));
            let charges = dice.pick(&[
                vec![],
                vec![throughline_core::ConfirmedCharge {
                    offer: OfferId::new("RC6").unwrap(),
                    transaction_id: format!("{CANARY}-charged"),
                }],
            ]);
            let amount = Some(session.amount);
            (
                Role::Service,
                Command::ConfirmClaims { transaction_id, amount, vault_id: None, customer_id: None, charges },
            )
        }
        Status::Pending | Status::Failed => match dice.below(6) {
            0 => (Role::Browser, Command::SetEmail { email: "ada@example.com".to_owned() }),
            1 => (
                Role::Browser,
                Command::SetCustomer {
                    customer: Box::new(Customer {
                        first_name: Some("Ada".to_owned()),
                        last_name: Some("Lovelace".to_owned()),
                        phone: Some("555".to_owned()),
                        billing: Some(Address { state: Some("CA".to_owned()), ..Address::default() }),
                        shipping: None,
                    }),
                },
            ),
            2 => {
                let id = dice.pick(&funnel.catalogue).id;
                (
                    Role::Browser,
                    Command::SetItems { items: vec![ItemRequest { id, quantity: 2, name: None, price: None }] },
                )
            }
            3 => match step.and_then(|step| step.next.first()) {
                Some(next) => (Role::Browser, Command::GoToStep { step: next.clone() }),
                None => (Role::Browser, Command::BeginProcessing {}),
            },
            _ => (Role::Browser, Command::BeginProcessing {}),
        },
        Status::Processing if !session.is_paid() => match dice.percent(75) {
            true => (
                Role::Service,
                Command::RecordPayment {
                    transaction_id: format!("{CANARY}-t1"),
                    amount: session.amount,
                    vault_id: Some(format!("{CANARY}-vault")),
                    customer_id: None,
                    payment_token: Some(format!("{CANARY}-token")),
                },
            ),
            false => {
                (Role::Service, Command::FailPayment { code: "declined".to_owned(), message: "Declined.".to_owned() })
            }
        },
        Status::Processing => match (accepted, open, dice.below(4)) {
            (Some(upsell), _, 0 | 1) => (
                Role::Service,
                Command::RecordUpsellCharge {
                    offer: upsell.offer.clone(),
                    transaction_id: format!("{CANARY}-c1"),
                    amount: upsell.price.plus(upsell.tax),
                },
            ),
            (_, Some(upsell), 0 | 1) => (Role::Browser, Command::AcceptUpsell { offer: upsell.offer.clone() }),
            (_, Some(upsell), 2) => (Role::Browser, Command::DeclineUpsell { offer: upsell.offer.clone() }),
            _ => match step.and_then(|step| step.next.first()) {
                Some(next) => (Role::Browser, Command::GoToStep { step: next.clone() }),
                None => (Role::Browser, Command::SetMetadata { metadata: object(dice, 1) }),
            },
        },
        Status::Completed | Status::Expired => (Role::Browser, Command::SetMetadata { metadata: object(dice, 1) }),
    }
}

/// A session on its way, with everything that happened to it.
#[derive(Clone)]
pub struct Walk {
    pub funnel: Funnel,
    pub now: Timestamp,
    pub state: Option<State>,
    pub records: Vec<Record>,
    seq: u64,
}

/// What one command did.
pub struct Stride {
    pub role: Role,
    pub command: Command,
    pub before: Option<State>,
    pub outcome: Result<Vec<Record>, Rejection>,
}

impl Walk {
    pub fn new(funnel: Funnel) -> Self {
        Self { funnel, now: START, state: None, records: Vec::new(), seq: 0 }
    }

    /// Issues one command by chance, after some time by chance.
    pub fn stride(&mut self, dice: &mut Dice) -> Stride {
        let pause = if dice.percent(97) { dice.below(120_000) } else { dice.below(3 * 86_400_000) };
        self.now = self.now.plus(TimeSpan::from_millis(pause as i64));
        let (role, command) = if dice.percent(60) {
            likely_command(dice, self.state.as_ref(), &self.funnel)
        } else {
            let role =
                dice.pick(&[Role::Browser, Role::Browser, Role::Service, Role::Service, Role::Operator, Role::System]);
            (role, any_command(dice, self.state.as_ref(), &self.funnel))
        };
        self.issue(role, command)
    }

    /// Issues a command.
    pub fn issue(&mut self, role: Role, command: Command) -> Stride {
        let before = self.state.clone();
        let id = session_id();
        let context =
            Context { now: self.now, funnel: &self.funnel, session_id: &id, epoch: 9, claim: Some("digest-canary") };
        let outcome = decide(self.state.as_ref(), &command, role, &context).map(|events| {
            self.seq += 1;
            let client_id = client(if role == Role::Browser { "browser" } else { "backend" });
            let records: Vec<Record> = events
                .into_iter()
                .map(|event| {
                    let version = self.state.as_ref().map_or(0, State::version) + 1;
                    let origin = Some(Origin { client_id: client_id.clone(), seq: self.seq });
                    let record = Record { version, at: self.now, by: role, origin, caller: None, event };
                    self.state = evolve(self.state.take(), &record);
                    record
                })
                .collect();
            self.records.extend(records.iter().cloned());
            records
        });
        Stride { role, command, before, outcome }
    }
}
