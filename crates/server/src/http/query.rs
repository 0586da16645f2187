//! Query parameters: each known by name, so that a filter that is misspelt is refused instead of ignored.

use std::str::FromStr;

use axum::http::StatusCode;
use throughline_core::Timestamp;

use crate::problem::Problem;

/// The parameters of a request, decoded, in their order.
#[derive(Debug, Clone)]
pub struct QueryParameters {
    pairs: Vec<(String, String)>,
}

impl QueryParameters {
    /// Reads them.
    ///
    /// # Errors
    /// A problem that names the first one that is not `known`.
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned();
        let pairs: Vec<(String, String)> =
            pairs.filter(|(name, value)| !name.is_empty() || !value.is_empty()).collect();
        match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => {
                // Whatever stands there comes back to whoever sent it, and nobody needs more of it to find it.
                let shown: String = name.chars().take(40).collect();
                Err(refused(&shown, &format!("it is not known here; known are {}", known.join(", "))))
            }
            None => Ok(Self { pairs }),
        }
    }

    /// The text of a parameter that may be there once. An empty one counts as missing.
    ///
    /// # Errors
    /// A problem when it is there twice.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(refused(name, "it is there more than once; send it once")),
            (value, None) => Ok(value),
        }
    }

    /// All values of a parameter that may be there several times, or hold several separated by commas.
    pub fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values(name).flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
    }

    /// A parameter of another form than text.
    ///
    /// # Errors
    /// A problem when it is there twice or can't be read; `what` says what it has to be.
    pub fn value<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| refused(name, &format!("it has to be {what}")))
    }

    /// A moment, in milliseconds since 1970.
    ///
    /// # Errors
    /// A problem when it is there twice or is no moment.
    pub fn moment(&self, name: &str) -> Result<Option<i64>, Problem> {
        let what = "a time such as 2026-11-25T09:00:00Z (RFC 3339; a `+` has to be sent as %2B)";
        Ok(self.value::<Timestamp>(name, what)?.map(Timestamp::as_millis))
    }

    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let name = name.to_owned();
        let named = self.pairs.iter().filter(move |(known, _)| *known == name);
        named.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// A problem with one parameter. `why` does not repeat its value, which may be an email address.
#[must_use]
pub fn refused(parameter: &str, why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "queryRefused", "Query refused")
        .detail(format!("the query parameter `{parameter}` is wrong: {why}"))
        .with("parameter", parameter)
        .mendable_by("permanent")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["status", "limit", "createdAfter"];

    fn read(query: &str) -> Result<QueryParameters, Problem> {
        QueryParameters::read(Some(query), &KNOWN)
    }

    #[test]
    fn what_is_not_known_is_named() {
        let problem = read("status=a&statsu=b").unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (400, "queryRefused"));
        assert!(String::from_utf8(problem.body()).unwrap().contains("statsu"));
        assert!(QueryParameters::read(None, &KNOWN).is_ok() && read("").is_ok() && read("&").is_ok());
    }

    #[test]
    fn lists_are_repeated_or_separated_by_commas() {
        let query = read("status=a,b&status=c%2Cd&status=").unwrap();
        assert_eq!(query.list("status").collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn what_is_there_twice_or_of_the_wrong_form_is_refused() {
        assert!(read("limit=1&limit=2").unwrap().text("limit").is_err());
        assert!(read("limit=one").unwrap().value::<u32>("limit", "a number").is_err());
        assert_eq!(read("limit=7").unwrap().value::<u32>("limit", "a number").unwrap(), Some(7));
        assert_eq!(read("limit=").unwrap().value::<u32>("limit", "a number").unwrap(), None);
        assert!(read("createdAfter=yesterday").unwrap().moment("createdAfter").is_err());
        assert_eq!(read("createdAfter=1970-01-01T00:00:01Z").unwrap().moment("createdAfter").unwrap(), Some(1_000));
        assert_eq!(
            read("createdAfter=1970-01-01T01:00:01%2B01:00").unwrap().moment("createdAfter").unwrap(),
            Some(1_000)
        );
    }
}
