//! `sg-store backup`, `backups` and `restore`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;

use super::Ended;
use super::output::{Format, print_backups};
use super::store::{DatabaseArgs, NAME};
use crate::report::{self, Level};
use crate::store::{Tuning, backup};
use crate::time::format_time;

#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The folder of backups, for this database alone; it is made if it is not there
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,

    /// Keep the newest N backups and remove older ones, once the new one is there [default: keep all]
    #[arg(long, value_name = "N")]
    keep: Option<NonZeroU32>,

    /// Read all files of the new backup and compare them with their checksums, also those that earlier
    /// backups have; nothing is removed if one is damaged
    #[arg(long)]
    check: bool,

    /// Print nothing on stderr but warnings and errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args, Debug)]
pub(super) struct BackupsArgs {
    /// The folder of backups
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,

    /// Read all files and compare them with their checksums
    #[arg(long)]
    check: bool,
}

#[derive(Args, Debug)]
pub(super) struct RestoreArgs {
    /// The folder of backups
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,

    /// The database folder to make, where nothing is yet
    #[arg(long, value_name = "DIR")]
    db: PathBuf,

    /// Which backup, as `sg-store backups` numbers them [default: the newest]
    #[arg(long, value_name = "N")]
    backup: Option<u32>,

    /// Print nothing on stderr but warnings and errors
    #[arg(short, long)]
    quiet: bool,
}

pub(super) const BACKUP_EXAMPLES: &str = "Examples:
  sg-store backup --db db --to /backup/siem --keep 7
  sg-store backup --db db --to /backup/siem --keep 7 --check

Exit codes:
  0  done
  2  trouble: wrong usage, no such database, a folder that cannot be written or holds a
     backup that is not whole, a failure
";

pub(super) const BACKUPS_EXAMPLES: &str = "Examples:
  sg-store backups --from /backup/siem
  sg-store backups --from /backup/siem --check

Exit codes:
  0  done
  1  there is none, or one is damaged
  2  trouble: wrong usage, a folder that cannot be read, a failure
";

pub(super) const RESTORE_EXAMPLES: &str = "Examples:
  sg-store restore --from /backup/siem --db db
  sg-store restore --from /backup/siem --db old --backup 3

Exit codes:
  0  done
  2  trouble: wrong usage, a database that is there already, a backup that is damaged, a failure
";

pub(super) fn run(args: &BackupArgs, tuning: &Tuning) -> anyhow::Result<Ended> {
    let how = (args.keep, args.check);
    let made = backup::make(&args.database.db, &args.to, how, tuning, &|work| {
        report::show(args.quiet, work, false)
    })?;
    if !args.quiet {
        let removed = match made.n_removed {
            0 => String::new(),
            n_removed => format!("; removed {n_removed} older"),
        };
        let text = format!(
            "backup {}: {} bytes in {} files, {} bytes of them new{removed}",
            made.number, made.n_bytes, made.n_files, made.n_new_bytes
        );
        let fields = [
            ("backup", made.number.into()),
            ("bytes", made.n_bytes.into()),
            ("files", made.n_files.into()),
            ("new_bytes", made.n_new_bytes.into()),
            ("removed", made.n_removed.into()),
        ];
        report::tell(Level::Info, NAME, &text, &fields);
    }
    Ok(Ended::Done)
}

pub(super) fn list(args: &BackupsArgs) -> anyhow::Result<Ended> {
    let backups = backup::list(&args.from, args.check)?;
    print_backups(&backups, Format::automatic())?;
    let is_whole = |backup: &backup::Backup| backup.damaged.is_empty();
    if backups.is_empty() || !backups.iter().all(is_whole) {
        return Ok(Ended::Partly);
    }
    Ok(Ended::Done)
}

pub(super) fn restore(args: &RestoreArgs, tuning: &Tuning) -> anyhow::Result<Ended> {
    let restored = backup::restore(&args.from, &args.db, args.backup, tuning, &|work| {
        report::show(args.quiet, work, false)
    })?;
    if !args.quiet {
        let text = format!(
            "database {} is as backup {} has it, of {}",
            args.db.display(),
            restored.number,
            format_time(restored.time_ms)
        );
        report::say(NAME, &text);
    }
    Ok(Ended::Done)
}
