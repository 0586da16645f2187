//! Points in time and spans of time, as values: nothing here reads a clock.

use core::fmt;
use core::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::digits;
use crate::prelude::*;

/// A point in time: milliseconds since the Unix epoch, UTC.
///
/// As JSON it is an RFC 3339 string in UTC with milliseconds (`2026-11-20T09:00:00.000Z`).
/// Years 0000 to 9999 can be written; arithmetic saturates there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = DateTime))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "Date"))]
pub struct Timestamp(i64);

const MILLIS_PER_DAY: i64 = 86_400_000;
/// 0000-01-01T00:00:00.000Z
const MIN_MILLIS: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z
const MAX_MILLIS: i64 = 253_402_300_799_999;

impl Timestamp {
    /// The point in time `millis` milliseconds after the Unix epoch, held within the years 0000 to 9999.
    pub const fn from_millis(millis: i64) -> Self {
        if millis < MIN_MILLIS {
            Self(MIN_MILLIS)
        } else if millis > MAX_MILLIS {
            Self(MAX_MILLIS)
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This point in time, `span` later.
    pub const fn plus(self, span: TimeSpan) -> Self {
        Self::from_millis(self.0.saturating_add(span.0))
    }

    /// How long from `earlier` to this point; zero when `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> TimeSpan {
        let millis = self.0.saturating_sub(earlier.0);
        TimeSpan(if millis < 0 { 0 } else { millis })
    }
}

impl Timestamp {
    /// RFC 3339, digit by digit: a session has many times, and formatting them was a third of writing it as JSON.
    fn text(self) -> [u8; 24] {
        const PLACES: [(usize, usize); 7] = [(0, 4), (5, 2), (8, 2), (11, 2), (14, 2), (17, 2), (20, 3)];
        let (year, month, day) = civil_from_days(self.0.div_euclid(MILLIS_PER_DAY));
        let in_day = self.0.rem_euclid(MILLIS_PER_DAY);
        let time = [in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1000 % 60, in_day % 1000];
        let parts = [year, month, day].into_iter().chain(time);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (mut part, (from, digits)) in parts.zip(PLACES) {
            for place in text[from..from + digits].iter_mut().rev() {
                *place = b"0123456789"[usize::try_from(part % 10).unwrap_or_default()];
                part /= 10;
            }
        }
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl Timestamp {
    /// Hands on its text, which is ASCII.
    pub(crate) fn with_text<T>(self, give: impl FnOnce(&str) -> T) -> T {
        give(str::from_utf8(&self.text()).unwrap_or_default())
    }
}

/// The text is not an RFC 3339 date and time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidTimestamp;

impl fmt::Display for InvalidTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl InvalidTimestamp {
    pub(crate) const fn sentence(self) -> &'static str {
        "expected an RFC 3339 date and time such as 2026-11-20T09:00:00.000Z"
    }
}

impl core::error::Error for InvalidTimestamp {}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Reads RFC 3339 with any offset; digits after the millisecond are dropped.
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        parse_rfc3339(text.as_bytes()).ok_or(InvalidTimestamp)
    }
}

fn parse_rfc3339(text: &[u8]) -> Option<Timestamp> {
    let number = |range: core::ops::Range<usize>| -> Option<i64> {
        text.get(range)?
            .iter()
            .try_fold(0i64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
    };
    let is = |at: usize, expected: &[u8]| text.get(at).is_some_and(|byte| expected.contains(byte));

    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let separated = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !separated || !in_range {
        return None;
    }

    let mut at = 19;
    let mut millis = 0;
    if is(at, b".") {
        let digits = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for place in 0..3 {
            let digit = if place < digits { i64::from(text[at + 1 + place] - b'0') } else { 0 };
            millis = millis * 10 + digit;
        }
        at += 1 + digits;
    }

    let offset_minutes = match text.get(at)? {
        b'Z' | b'z' if text.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if text.len() == at + 6 && is(at + 3, b":") => {
            let (hours, minutes) = (number(at + 1..at + 3)?, number(at + 4..at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };

    let in_day = ((hour * 60 + minute - offset_minutes) * 60 + second) * 1000 + millis;
    Some(Timestamp::from_millis(days_from_civil(year, month, day) * MILLIS_PER_DAY + in_day))
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A length of time in whole milliseconds, never negative.
///
/// As text it is a number and a unit: `500ms`, `30s`, `10m`, `24h`, `7d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "24h"))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
pub struct TimeSpan(i64);

const UNITS: [(&str, i64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", MILLIS_PER_DAY)];

impl TimeSpan {
    /// A span of `millis` milliseconds; negative values count as zero.
    pub const fn from_millis(millis: i64) -> Self {
        Self(if millis < 0 { 0 } else { millis })
    }

    /// A span of `hours` hours.
    pub const fn from_hours(hours: i64) -> Self {
        Self::from_millis(hours.saturating_mul(3_600_000))
    }

    /// The span in milliseconds.
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl TimeSpan {
    pub(crate) fn text(self) -> String {
        let (unit, millis) =
            UNITS.iter().rev().find(|(_, millis)| self.0 != 0 && self.0 % millis == 0).unwrap_or(&UNITS[1]);
        [&digits(self.0 / millis), *unit].joined()
    }
}

/// The text is not a number with a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidTimeSpan;

impl fmt::Display for InvalidTimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl InvalidTimeSpan {
    pub(crate) const fn sentence(self) -> &'static str {
        "expected a whole number and a unit such as 30s, 10m, 24h or 7d"
    }
}

impl core::error::Error for InvalidTimeSpan {}

impl FromStr for TimeSpan {
    type Err = InvalidTimeSpan;

    fn from_str(text: &str) -> Result<Self, InvalidTimeSpan> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(InvalidTimeSpan)?;
        let digit = |number: i64, digit: u8| number.checked_mul(10)?.checked_add((digit - b'0').into());
        let number = number.bytes().try_fold(0, digit).filter(|_| digits > 0).ok_or(InvalidTimeSpan)?;
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(InvalidTimeSpan)?;
        number.checked_mul(*millis).map(Self).ok_or(InvalidTimeSpan)
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <alloc::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    use super::*;

    proptest! {
        #[test]
        fn every_timestamp_reads_back_as_it_was_written(millis in MIN_MILLIS..=MAX_MILLIS) {
            let written = Timestamp::from_millis(millis).to_string();
            prop_assert_eq!(written.parse(), Ok(Timestamp::from_millis(millis)));
        }

        #[test]
        fn timestamps_agree_with_the_time_crate(millis in MIN_MILLIS..=MAX_MILLIS) {
            let theirs = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap();
            let written = theirs.format(&Rfc3339).unwrap();
            prop_assert_eq!(written.parse(), Ok(Timestamp::from_millis(millis)));
            let read = OffsetDateTime::parse(&Timestamp::from_millis(millis).to_string(), &Rfc3339).unwrap();
            prop_assert_eq!(read, theirs);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Timestamp>();
            let _ = text.parse::<TimeSpan>();
        }

        #[test]
        fn every_time_span_reads_back_as_it_was_written(millis in 0..i64::MAX) {
            let span = TimeSpan::from_millis(millis);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }
    }

    #[test]
    fn offsets_are_converted_to_utc() {
        assert_eq!("2026-11-20T10:30:00+01:30".parse(), "2026-11-20T09:00:00.000Z".parse::<Timestamp>());
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        for text in ["2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-20T24:00:00Z", "2026-11-20", ""] {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTimestamp), "{text}");
        }
    }
}
