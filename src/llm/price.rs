//! What tokens cost.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::wire::Usage;

/// Dollars for a million tokens, which is millionths of a dollar for one.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input: f64,
    pub output: f64,
    /// Of the input's price, for what a service keeps from call to call.
    #[serde(default = "cache_write")]
    pub cache_write_factor: f64,
    #[serde(default = "cache_read")]
    pub cache_read_factor: f64,
}

fn cache_write() -> f64 {
    1.25
}

fn cache_read() -> f64 {
    0.1
}

/// Prices of the vendor's model pages in November 2026, for questions as short as ours.
const KNOWN: [(&str, f64, f64); 4] = [
    ("claude-haiku-5-5", 0.10, 0.50),
    ("claude-sonnet-5-5", 2.0, 10.0),
    ("claude-opus-5-5", 4.0, 20.0),
    ("claude-haiku-4-5", 1.0, 5.0),
];

/// Prices by model.
#[derive(Clone, Debug)]
pub struct Prices(BTreeMap<String, Price>);

impl Default for Prices {
    fn default() -> Self {
        let price = |input, output| Price {
            input,
            output,
            cache_write_factor: cache_write(),
            cache_read_factor: cache_read(),
        };
        let known = KNOWN.iter();
        let known =
            known.map(|(model, input, output)| ((*model).to_owned(), price(*input, *output)));
        Self(known.collect())
    }
}

impl Prices {
    /// Adds those of a table in TOML, which come before ours.
    ///
    /// # Errors
    /// A sentence on what is wrong with it.
    pub fn with(mut self, text: &str) -> Result<Self, String> {
        let table: BTreeMap<String, Price> =
            toml::from_str(text).map_err(|error| error.message().to_owned())?;
        for (model, price) in &table {
            let Price {
                input,
                output,
                cache_write_factor,
                cache_read_factor,
            } = *price;
            let is_price = |number: f64| (0.0..=1e6).contains(&number);
            if ![input, output, cache_write_factor, cache_read_factor]
                .into_iter()
                .all(is_price)
            {
                return Err(format!("a price of {model} is not in 0..=1000000"));
            }
        }
        self.0.extend(table);
        Ok(self)
    }

    /// The price of a model; one of a day, `NAME-20261001`, costs what its name does.
    #[must_use]
    pub fn of(&self, model: &str) -> Option<Price> {
        let without_day = model
            .rsplit_once('-')
            .filter(|(_, day)| day.len() == 8 && day.bytes().all(|digit| digit.is_ascii_digit()));
        let without_day = without_day.and_then(|(name, _)| self.0.get(name));
        self.0.get(model).or(without_day).copied()
    }
}

impl Price {
    /// Millionths of a dollar.
    #[must_use]
    pub fn micro_usd(&self, usage: Usage) -> u64 {
        let input = usage.input as f64
            + usage.cache_writes as f64 * self.cache_write_factor
            + usage.cache_reads as f64 * self.cache_read_factor;
        (input * self.input + usage.output as f64 * self.output).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_found_and_replaced() {
        let prices = Prices::default();
        let usage = Usage {
            input: 1_000,
            cache_writes: 100,
            cache_reads: 1_000,
            output: 200,
        };
        let cost =
            |prices: &Prices, model: &str| prices.of(model).map(|price| price.micro_usd(usage));
        assert_eq!(cost(&prices, "claude-haiku-5-5"), Some(223));
        assert_eq!(cost(&prices, "claude-haiku-5-5-20261001"), Some(223));
        assert_eq!(cost(&prices, "llama"), None);
        let text = "[llama]\ninput = 0\noutput = 0\n[\"claude-haiku-5-5\"]\ninput = 1\noutput = 2\ncache_read_factor = 1\n";
        let prices = prices.with(text).expect("prices");
        assert_eq!(cost(&prices, "llama"), Some(0));
        assert_eq!(cost(&prices, "claude-haiku-5-5"), Some(2_525));
        for text in [
            "x",
            "[m]\ninput = 1",
            "[m]\ninput = -1\noutput = 1",
            "[m]\ninput=1\noutput=1\nx=1",
        ] {
            assert!(Prices::default().with(text).is_err(), "{text}");
        }
    }
}
