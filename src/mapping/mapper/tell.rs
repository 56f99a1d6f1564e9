//! Finds out of which format a record is: by its members, or by those of a record that it holds.

use super::super::slots::Kind;
use super::super::tree::sign_place;
use super::Mapper;
use crate::record::Checked;

/// What a record is found to be.
pub(in crate::mapping) enum Told {
    Format(usize),
    Native,
    /// An object that holds records: the place of their array.
    Envelope(u16),
    Unknown,
}

impl<'a> Mapper<'_, 'a> {
    /// Finds out what a record is, and what stands in it.
    pub(in crate::mapping) fn tell(&mut self, record: &'a str, is_line: bool) -> Checked<Told> {
        let mapping = self.mapping;
        let told = self.tell_by_members(record, is_line)?;
        if mapping.only.is_some() || !matches!(told, Told::Unknown) {
            return Ok(told);
        }
        if is_line {
            self.walk_tree(&mapping.envelopes.tree, record)?;
            let mut places = mapping.envelopes.all.iter().map(|holder| holder.place);
            if let Some(place) = places.find(|&place| self.holds_array(place)) {
                return Ok(Told::Envelope(place));
            }
        }
        let Some(number) = self.tell_inside(record)? else {
            return Ok(Told::Unknown);
        };
        self.guess = number;
        self.walk(number, record)?;
        Ok(Told::Format(number))
    }

    /// The format of the record that this one holds, if that format says that its records come so. Who may write a text
    /// into some member must not write whole events, so few members are asked.
    fn tell_inside(&mut self, record: &'a str) -> Checked<Option<usize>> {
        let mapping = self.mapping;
        self.walk_tree(&mapping.wrappers.tree, record)?;
        for holders in mapping.wrappers.all.chunk_by(|a, b| a.place == b.place) {
            let slot = self.slots.get(holders[0].place);
            if slot.kind != Kind::Object && !slot.is_scalar() {
                continue;
            }
            let text = self.texts.get(slot).unwrap_or_default();
            if !text.trim_ascii_start().starts_with('{') {
                continue;
            }
            let mut mapper = Mapper::new(mapping);
            mapper.guess = self.guess;
            // What is no object is no record of any format.
            if let Ok(Told::Format(number)) = mapper.tell_by_members(&text, false)
                && holders.iter().any(|holder| holder.format == number)
            {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// The same by its own members alone.
    pub(in crate::mapping) fn tell_by_members(
        &mut self,
        record: &'a str,
        is_line: bool,
    ) -> Checked<Told> {
        let mapping = self.mapping;
        if let Some(only) = mapping.only {
            let format = self.walk(only, record)?;
            let mut envelopes = format.envelopes.iter().copied();
            let envelope = envelopes.find(|&place| is_line && self.holds_array(place));
            let Some(envelope) = envelope else {
                return Ok(Told::Format(only));
            };
            // A record of the format may have a member of that name, which its signs tell; they were not noted.
            self.slots.notes_signs = true;
            let walked = self.walk(only, record);
            self.slots.notes_signs = false;
            walked?;
            let is_record = format.is_told_by(&self.slots, &self.texts, &mut false);
            return Ok(if is_record {
                Told::Format(only)
            } else {
                Told::Envelope(envelope)
            });
        }
        let guess = self.guess;
        let format = self.walk(guess, record)?;
        let is_native =
            |&sign: &u16| self.slots.has_seen(sign) && self.slots.get(sign_place(sign)).is_exact;
        if format.natives.iter().all(is_native) {
            return Ok(Told::Native);
        }
        let told = match &self.told_before {
            // Most records have the members of the one before.
            Some((signs, told)) if signs == self.slots.signs() => {
                let told = *told;
                #[cfg(test)]
                assert_eq!(told, self.told_by_signs());
                told
            }
            _ => self.told_by_signs(),
        };
        match told {
            Some(number) if number == guess => Ok(Told::Format(number)),
            Some(number) => {
                self.guess = number;
                self.walk(number, record)?;
                Ok(Told::Format(number))
            }
            None => Ok(Told::Unknown),
        }
    }

    /// The first format of which the record's members are.
    fn told_by_signs(&mut self) -> Option<usize> {
        let mut asks_more = false;
        let is_told = |number: &usize| {
            let format = self.mapping.format(*number);
            format.is_told_by(&self.slots, &self.texts, &mut asks_more)
        };
        let told = (0..self.mapping.formats.len()).find(is_told);
        if !asks_more {
            self.told_before = Some((*self.slots.signs(), told));
        }
        told
    }
}
