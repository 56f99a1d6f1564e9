//! What is asked for in the part of an address behind the question mark: as it is documented, as it was
//! typed, and what it means.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, MatchedPath, Path, Query, Request, State};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::{
    AnyOfBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, Type,
};
use utoipa::openapi::{OpenApi, RefOr};

use crate::query::{Filter, parse_cursor};
use crate::record::anomaly::Severity;
use crate::record::{FIELD_BYTES_MAX, TIMESTAMP_MS_MAX};
use crate::serve::Service;
use crate::serve::problem::Problem;
use crate::store::Order;
use crate::time::{now_ms, parse_time};

/// Items of an answer at the most.
pub(super) const LIMIT_MAX: u64 = 1_000;
/// Items of an answer if nobody says how many.
pub(super) const LIMIT: u64 = 100;
/// Characters of a text to find events like it.
pub(super) const TEXT_CHARS_MAX: usize = 4_096;

/// Of when, of whom and how bad.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// From this time on
    #[param(schema_with = time)]
    pub(super) since: Option<String>,
    /// Up to this time
    #[param(schema_with = time)]
    pub(super) until: Option<String>,
    /// Of this user
    #[param(schema_with = text)]
    pub(super) user: Option<String>,
    /// Of this type
    #[param(schema_with = text)]
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    /// From this address
    #[param(schema_with = address)]
    pub(super) ip: Option<String>,
    /// With an anomaly score from this on
    #[param(schema_with = score)]
    pub(super) min_score: Option<String>,
    /// Of this severity or a higher one
    #[param(schema_with = severity)]
    pub(super) severity: Option<String>,
}

/// From when on and up to when, for questions that have these alone.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Range {
    /// From this time on
    #[param(schema_with = time)]
    pub(super) since: Option<String>,
    /// Up to this time
    #[param(schema_with = time)]
    pub(super) until: Option<String>,
}

/// The same by their other names.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Stretch {
    /// From this time on
    #[param(schema_with = time)]
    pub(super) start: Option<String>,
    /// Up to this time
    #[param(schema_with = time)]
    pub(super) end: Option<String>,
}

/// In which order of time.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Ordering {
    /// What comes first
    #[param(schema_with = order)]
    pub(super) order: Option<String>,
}

/// How many items.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Limit {
    /// At most this many
    #[param(schema_with = limit)]
    pub(super) limit: Option<String>,
}

/// From which place on.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Place {
    /// Go on where an earlier answer stopped: what it gave as `next`
    #[param(schema_with = cursor)]
    pub(super) cursor: Option<String>,
}

/// What is asked for. The document says which parameters a path has, so here they can all be there.
pub(super) struct Asked {
    pub(super) filter: Filter,
    /// How many, if it is said.
    pub(super) limit: Option<usize>,
    /// Nothing is asked for but everything.
    pub(super) is_everything: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let which: Which = query(&parts.uri)?;
        let stretch: Stretch = query(&parts.uri)?;
        let ordering: Ordering = query(&parts.uri)?;
        let limit: Limit = query(&parts.uri)?;
        let place: Place = query(&parts.uri)?;
        let limit = parse_integer("limit", limit.limit.as_deref(), 1..=LIMIT_MAX)?;
        let limit = limit.map(|limit| limit as usize);
        let mut filter = which.filter()?;
        if let Some(start_ms) = parse_ms("start", stretch.start.as_deref())? {
            filter.since_ms = start_ms;
        }
        if let Some(end_ms) = parse_ms("end", stretch.end.as_deref())? {
            filter.until_ms = end_ms;
        }
        filter.order = ordering.order()?;
        filter.after = place.after()?;
        filter.limit = limit.unwrap_or(LIMIT as usize);
        Ok(Self {
            filter,
            limit,
            is_everything: which.is_empty(),
        })
    }
}

/// The parameters of an address that one part of the document names.
pub(in crate::serve) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let read = Query::<T>::try_from_uri(uri);
    let read = read.map_err(|error| Problem::bad(error.body_text()))?;
    Ok(read.0)
}

/// The name in a path.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = read.map_err(|error| Problem::bad(error.body_text()))?;
        Ok(Self(name))
    }
}

impl Which {
    /// All that match, the newest first.
    fn filter(&self) -> Result<Filter, Problem> {
        let all = Filter::default();
        Ok(Filter {
            since_ms: parse_ms("since", self.since.as_deref())?.unwrap_or(all.since_ms),
            until_ms: parse_ms("until", self.until.as_deref())?.unwrap_or(all.until_ms),
            user: parse_text("user", self.user.as_deref(), FIELD_BYTES_MAX)?,
            kind: parse_text("type", self.kind.as_deref(), FIELD_BYTES_MAX)?,
            source_ip: parse_address(self.ip.as_deref())?,
            min_score: parse_score("min_score", self.min_score.as_deref())?,
            severity: self.severity.as_deref().map(parse_severity).transpose()?,
            ..all
        })
    }

    fn is_empty(&self) -> bool {
        let Self {
            since,
            until,
            user,
            kind,
            ip,
            min_score,
            severity,
        } = self;
        let all = [since, until, user, kind, ip, min_score, severity];
        all.iter().all(|parameter| parameter.is_none())
    }
}

impl Ordering {
    fn order(&self) -> Result<Order, Problem> {
        match self.order.as_deref() {
            None | Some("newest") => Ok(Order::NewestFirst),
            Some("oldest") => Ok(Order::OldestFirst),
            Some(_) => Err(Problem::bad("order: expected newest or oldest")),
        }
    }
}

impl Place {
    fn after(&self) -> Result<Option<Vec<u8>>, Problem> {
        let cursor = self.cursor.as_deref().map(parse_cursor).transpose();
        cursor.map_err(|error| Problem::bad(format!("cursor: {error}")))
    }
}

/// A time in ms.
pub(super) fn parse_ms(name: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    // A number below 0 is a mistake; a date before 1970 is none.
    if text.is_some_and(|text| text.starts_with(['-', '+'])) {
        return Err(Problem::bad(format!(
            "{name}: expected a time without a sign"
        )));
    }
    let time = text.map(|text| parse_time(text, now_ms())).transpose();
    let time = time.map_err(|error| Problem::bad(format!("{name}: {error}")))?;
    let is_known = time.is_none_or(|time| time <= TIMESTAMP_MS_MAX);
    let too_late = || format!("{name}: no event is later than {TIMESTAMP_MS_MAX}");
    is_known
        .then_some(time)
        .ok_or_else(|| Problem::bad(too_late()))
}

pub(in crate::serve) fn parse_text(
    name: &str,
    text: Option<&str>,
    chars_max: usize,
) -> Result<Option<String>, Problem> {
    let is_fine = text.is_none_or(|text| (1..=chars_max).contains(&text.chars().count()));
    let expected = || format!("{name}: expected a text of 1 to {chars_max} characters");
    (is_fine.then(|| text.map(str::to_owned))).ok_or_else(|| Problem::bad(expected()))
}

fn parse_address(text: Option<&str>) -> Result<Option<String>, Problem> {
    let address = text.map(str::parse::<std::net::IpAddr>).transpose();
    let address = address.map_err(|_| Problem::bad("ip: expected an address"))?;
    // As events have it.
    Ok(address.map(|address| address.to_string()))
}

pub(super) fn parse_score(name: &str, text: Option<&str>) -> Result<Option<f64>, Problem> {
    let score = text.map(|text| parse_number(text).filter(|score| (0.0..=1.0).contains(score)));
    let expected = || Problem::bad(format!("{name}: expected a number in 0..=1"));
    score.map_or(Ok(None), |score| score.map(Some).ok_or_else(expected))
}

pub(in crate::serve) fn parse_severity(text: &str) -> Result<Severity, Problem> {
    let severity = Severity::ALL
        .into_iter()
        .find(|severity| severity.name() == text);
    severity.ok_or_else(|| Problem::bad("severity: expected low, medium, high or critical"))
}

pub(super) fn parse_integer(
    name: &str,
    text: Option<&str>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, Problem> {
    let number = text.map(|text| parse_number(text).filter(|number| range.contains(number)));
    let (start, end) = (range.start(), range.end());
    let expected = || Problem::bad(format!("{name}: expected an integer in {start}..={end}"));
    number.map_or(Ok(None), |number| number.map(Some).ok_or_else(expected))
}

/// A number as JSON has it: no `+1`, no `.5`, no `inf`.
fn parse_number<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    let is_bare = text.bytes().all(|byte| byte.is_ascii_graphic());
    is_bare.then(|| serde_json::from_str(text).ok())?
}

pub(super) fn time() -> RefOr<Schema> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let instant = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let day = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Date)));
    let ms = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .maximum(Some(TIMESTAMP_MS_MAX))
        .description(Some("milliseconds since 1970"));
    let span = text()
        .pattern(Some("^[0-9]{1,9}[smhdw]$"))
        .description(Some("seconds, minutes, hours, days or weeks ago"));
    let any = AnyOfBuilder::new()
        .item(instant)
        .item(day)
        .item(ms)
        .item(span);
    any.examples(["2026-11-24T08:00:00Z", "24h"]).into()
}

pub(super) fn text() -> Object {
    sized_text(FIELD_BYTES_MAX)
}

pub(super) fn similar_text() -> Object {
    sized_text(TEXT_CHARS_MAX)
}

pub(super) fn id() -> Object {
    sized_text(crate::record::EVENT_ID_BYTES_MAX)
}

fn sized_text(chars_max: usize) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(chars_max))
        .build()
}

fn address() -> RefOr<Schema> {
    let format = |name: KnownFormat| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(name)))
    };
    let any = AnyOfBuilder::new();
    any.item(format(KnownFormat::Ipv4))
        .item(format(KnownFormat::Ipv6))
        .into()
}

pub(super) fn score() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .minimum(Some(0))
        .maximum(Some(1))
        .build()
}

pub(super) fn severity() -> Object {
    one_of(Severity::ALL.map(Severity::name))
}

fn order() -> Object {
    let mut order = one_of(["newest", "oldest"]);
    order.default = Some("newest".into());
    order
}

pub(super) fn one_of<const N: usize>(names: [&str; N]) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names))
        .build()
}

pub(super) fn limit() -> Object {
    integer(1..=LIMIT_MAX, Some(LIMIT))
}

pub(super) fn integer(range: std::ops::RangeInclusive<u64>, otherwise: Option<u64>) -> Object {
    let integer = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(*range.start()))
        .maximum(Some(*range.end()));
    integer.default(otherwise.map(Into::into)).build()
}

fn cursor() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::Custom("cursor".to_owned())))
        .build()
}

/// The parameters that each path has, as the document says.
pub(in crate::serve) struct Known(HashMap<String, Vec<String>>);

impl Known {
    pub(in crate::serve) fn of(document: &OpenApi) -> Self {
        let names = |operation: &Operation| {
            let parameters = operation.parameters.iter().flatten();
            let parameters = parameters.filter_map(|it| match it {
                RefOr::T(parameter) => Some(parameter),
                RefOr::Ref(_) => None,
            });
            let parameters = parameters.filter(|it| it.parameter_in == ParameterIn::Query);
            parameters.map(|it| it.name.clone()).collect::<Vec<_>>()
        };
        let paths = document.paths.paths.iter().map(|(path, item)| {
            let operations = [&item.get, &item.delete].into_iter().flatten();
            (path.clone(), operations.flat_map(names).collect())
        });
        Self(paths.collect())
    }

    pub(in crate::serve) fn has(&self, path: &str, name: &str) -> bool {
        let names = self.0.get(path);
        names.is_some_and(|names| names.iter().any(|known| known == name))
    }

    /// Whether every parameter is one that the path has, is there once, and is text.
    fn check(&self, path: &str, query: &str) -> Result<(), Problem> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let decoded = percent_decode_str(&text).decode_utf8();
            decoded.map(std::borrow::Cow::into_owned)
        };
        let mut names = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Ok(name), Ok(_)) = (decode(name), decode(value)) else {
                return Err(Problem::bad("the parameters are not UTF-8"));
            };
            if !self.has(path, &name) {
                let name = crate::record::text::shorten(&name, 64).into_owned();
                return Err(Problem::bad(format!("there is no parameter {name} here")));
            }
            if names.contains(&name) {
                return Err(Problem::bad(format!("{name}: it is there twice")));
            }
            names.push(name);
        }
        Ok(())
    }
}

/// Refuses parameters that a path does not have: a mistyped filter must not be passed over.
pub(in crate::serve) async fn check(
    State(service): State<Service>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let query = request.uri().query().unwrap_or_default();
    service.known.check(path.as_str(), query)?;
    Ok(next.run(request).await)
}
