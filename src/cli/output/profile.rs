//! A user's habits for a person: who it is, when and on which days they are at work, from where and at
//! what, and what was out of character lately.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::screen::Screen;
use super::time_cell;
use crate::query::{Profile, Raised, Usual, Week};

/// Lines that the highest hour is high.
const LINES: usize = 5;
/// Values that are shown of each kind.
const VALUES_SHOWN_MAX: usize = 8;
/// A bar has that many columns at least, however long values are, and at most.
const BAR_COLUMNS: (usize, usize) = (8, 30);
/// What stands before hours and behind them.
const MARGIN: usize = 6;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

pub(in crate::cli) fn print_profile(profile: &Profile) -> io::Result<()> {
    let screen = Screen::of_stdout();
    let mut text = String::new();
    draw(&screen, profile, &mut text).expect("a string takes every write");
    let mut output = io::stdout();
    output.write_all(text.as_bytes())?;
    output.flush()
}

fn draw(screen: &Screen, profile: &Profile, text: &mut String) -> std::fmt::Result {
    let failures = profile.failure_share * 100.0;
    writeln!(text, "{}", screen.text(&profile.user, screen.width))?;
    writeln!(
        text,
        "  {} events, {} failed ({failures:.1}%)",
        profile.events, profile.failed
    )?;
    let (first, last) = (time_cell(&profile.first), time_cell(&profile.last));
    writeln!(text, "  from {first} to {last} (UTC)")?;
    if let Some(average) = profile.avg_threat_score {
        writeln!(text, "  average threat score {average:.2}")?;
    }
    let source = match profile.source {
        "baseline" => "as sg-run has learned it",
        _ => "counted from the stored events",
    };
    writeln!(text, "  {source}")?;
    draw_hours(screen, profile, text)?;
    draw_week(screen, profile, text)?;
    let kinds = [
        ("addresses", &profile.addresses),
        ("locations", &profile.locations),
        ("types", &profile.types),
    ];
    draw_values(screen, kinds, text)?;
    draw_raised(screen, &profile.anomalies, text)
}

/// Columns of an hour.
fn hour_columns(screen: &Screen) -> usize {
    ((screen.width - 2 * MARGIN) / 24).clamp(1, 3)
}

/// Standing bars, and which hours they are.
fn draw_hours(screen: &Screen, profile: &Profile, text: &mut String) -> std::fmt::Result {
    writeln!(text, "\n  hours (UTC)")?;
    let n_columns = hour_columns(screen);
    let most = profile.hours.iter().copied().max().unwrap_or(0).max(1);
    let share = f64::from(most) / profile.events.max(1) as f64 * 100.0;
    for line in (0..LINES).rev() {
        let label = match line {
            _ if line == LINES - 1 => format!("{share:.0}%"),
            0 => "0".to_owned(),
            _ => String::new(),
        };
        let mut bars = String::new();
        for &n_events in &profile.hours {
            let height = f64::from(n_events) / f64::from(most) * (LINES * 8) as f64;
            // Something is never nothing.
            let height = (height.round() as usize).max(usize::from(n_events > 0));
            let character = screen.standing(height.saturating_sub(line * 8));
            bars.extend(std::iter::repeat_n(character, n_columns));
        }
        writeln!(text, "{label:>5} {}", bars.trim_end())?;
    }
    let n_hours = if n_columns == 1 { 6 } else { 3 };
    let mut ticks = String::new();
    for hour in (0..24).step_by(n_hours) {
        write!(ticks, "{:<1$}", format!("{hour:02}"), n_hours * n_columns)?;
    }
    writeln!(text, "{:MARGIN$}{}", "", ticks.trim_end())
}

/// Below the hours a line for each day: the darker, the more events.
fn draw_week(screen: &Screen, profile: &Profile, text: &mut String) -> std::fmt::Result {
    let Week { events, hours } = &profile.week;
    if *events == 0 {
        return Ok(());
    }
    let n_columns = hour_columns(screen);
    let most = hours.iter().flatten().copied().max().unwrap_or(0).max(1);
    for (day, hours) in DAYS.iter().zip(hours) {
        let mut shades = String::new();
        for n_events in hours {
            let darkness = (n_events * 4).div_ceil(most) as usize;
            let character = screen.shade(darkness);
            shades.extend(std::iter::repeat_n(character, n_columns));
        }
        let share = f64::from(hours.iter().sum::<u32>()) / f64::from(*events) * 100.0;
        writeln!(text, "{day:>5} {shades}{:>6}", format!("{share:.0}%"))?;
    }
    if u64::from(*events) != profile.events {
        writeln!(
            text,
            "{:MARGIN$}(days: of the newest {events} events stored)",
            ""
        )?;
    }
    Ok(())
}

/// Lying bars, all under each other.
fn draw_values(screen: &Screen, kinds: [(&str, &Usual); 3], text: &mut String) -> std::fmt::Result {
    let shown = |usual: &Usual| usual.top.len().min(VALUES_SHOWN_MAX);
    let all = || {
        let values = kinds.iter().map(|(_, usual)| &usual.top[..shown(usual)]);
        values.flatten()
    };
    let count_columns = all().map(|value| value.events.to_string().len()).max();
    let count_columns = count_columns.unwrap_or(0);
    // What is left by the indent, the share, the count, and what is between them.
    let n_columns = screen.width.saturating_sub(4 + 1 + 7 + 2 + count_columns);
    let (bar_min, bar_max) = BAR_COLUMNS;
    let widest = all().map(|value| screen.columns(&value.value)).max();
    let value_columns = widest.unwrap_or(0).min(n_columns.saturating_sub(bar_min));
    let bar_columns = (n_columns - value_columns).clamp(bar_min, bar_max);
    for (name, usual) in kinds {
        writeln!(text, "\n  {name} ({})", usual.distinct)?;
        let n_shown = shown(usual);
        for value in &usual.top[..n_shown] {
            writeln!(
                text,
                "    {} {}{:>7}  {:>count_columns$}",
                screen.filled(&value.value, value_columns),
                screen.bar(value.share, bar_columns),
                format!("{:.1}%", value.share * 100.0),
                value.events
            )?;
        }
        if usual.distinct > n_shown {
            writeln!(text, "    and {} more", usual.distinct - n_shown)?;
        }
    }
    Ok(())
}

fn draw_raised(screen: &Screen, raised: &Raised, text: &mut String) -> std::fmt::Result {
    const REASON_COLUMNS_MIN: usize = 30;
    let by_severity = &raised.by_severity;
    let counts = [
        (by_severity.critical, "critical"),
        (by_severity.high, "high"),
        (by_severity.medium, "medium"),
        (by_severity.low, "low"),
    ];
    let present = counts.iter().filter(|(n_anomalies, _)| *n_anomalies > 0);
    let present: Vec<String> = present
        .map(|(n_anomalies, name)| format!("{n_anomalies} {name}"))
        .collect();
    let total = by_severity.total();
    let count = if raised.more {
        format!("the newest {total}")
    } else {
        total.to_string()
    };
    let separator = if present.is_empty() { "" } else { ": " };
    writeln!(
        text,
        "\n  anomalies ({count}{separator}{})",
        present.join(", ")
    )?;
    for it in &raised.last {
        let time = time_cell(&it.time);
        let severity = screen.severity(it.severity, 8);
        let start = format!("    {time}  {severity}  {:.3}", it.anomaly_score);
        let n_columns = 4 + time.len() + 2 + 8 + 2 + 5 + 2;
        let reason = it.reasons.first().map_or("", String::as_str);
        let left = screen.width.saturating_sub(n_columns);
        if reason.is_empty() {
            writeln!(text, "{start}")?;
        } else if left >= REASON_COLUMNS_MIN {
            writeln!(text, "{start}  {}", screen.text(reason, left))?;
        } else {
            writeln!(text, "{start}")?;
            writeln!(text, "      {}", screen.text(reason, screen.width - 6))?;
        }
    }
    Ok(())
}
