//! Lengths of time as people write them: `1y2m3d4h`, or ISO 8601.

use crate::error::{Error, Result};
use jiff::{Span, SpanFieldwise, Zoned};
use std::fmt;
use std::str::FromStr;

/// A length of time by the calendar: a month is as long as the month that it is taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Age(SpanFieldwise);

/// Units of the short form, in the order in which they stand.
const UNITS: &str = "ymwdh";

impl Age {
    /// The moment this long before `moment`; `None` if that lies before the calendar begins.
    #[must_use]
    pub fn before(&self, moment: &Zoned) -> Option<Zoned> {
        moment.checked_sub(self.0.0).ok()
    }

    /// The moment this long after `moment`; `None` if the calendar has ended by then.
    #[must_use]
    pub fn after(&self, moment: &Zoned) -> Option<Zoned> {
        moment.checked_add(self.0.0).ok()
    }

    fn short(text: &str) -> Option<Span> {
        let mut span = Span::new();
        let (mut rest, mut units) = (text, UNITS);
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
            let number: i64 = rest[..digits].parse().ok()?;
            let unit = rest[digits..].chars().next()?;
            units = &units[units.find(unit)? + 1..];
            span = match unit {
                'y' => span.try_years(number),
                'm' => span.try_months(number),
                'w' => span.try_weeks(number),
                'd' => span.try_days(number),
                _ => span.try_hours(number),
            }
            .ok()?;
            rest = &rest[digits + 1..];
        }
        Some(span)
    }
}

impl FromStr for Age {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let span = if text.starts_with('P') { text.parse().ok() } else { Self::short(text) };
        // What is subtracted must lead into the past, and be more than nothing.
        match span.filter(|span: &Span| span.is_positive()) {
            Some(span) => Ok(Self(span.fieldwise())),
            None => Err(Error::usage(format!("read the length of time {text:?}: not one")).with_hint(
                "write it like 30d, 1y6m, 2w, or 36h (y, m, w, d, h for years to hours, in this order), or like P1Y6M",
            )),
        }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.0.0;
        let smaller =
            [span.get_minutes(), span.get_seconds(), span.get_milliseconds(), span.get_microseconds(), span.get_nanoseconds()];
        if smaller.iter().any(|number| *number != 0) {
            return write!(out, "{span}");
        }
        let numbers = [span.get_years().into(), span.get_months(), span.get_weeks(), span.get_days(), span.get_hours()];
        let units = numbers.iter().zip(UNITS.chars()).filter(|(number, _): &(&i32, _)| **number != 0);
        units.into_iter().try_for_each(|(number, unit)| write!(out, "{number}{unit}"))
    }
}

impl fmt::Debug for Age {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}
