//! What people of a role have in common: when they work, what they do, how far they travel.

use super::event::EventType;

/// The habits of a role.
pub(super) struct Role {
    /// How many of 100 users have it.
    pub(super) share_percent: u32,
    /// The local hours at which a shift may start. A user keeps one, or moves on every week.
    pub(super) start_hours: [u8; 3],
    pub(super) rotates_weekly: bool,
    /// Activity by hours since the start of the shift.
    pub(super) shift: &'static [f64; 24],
    pub(super) work_days: WorkDays,
    /// Activity on a day off, as a share of that on a work day.
    pub(super) day_off_share: f64,
    /// Scales activity so that every role's mean over a week is 1 and a user's volume does not
    /// depend on the length of the shift.
    pub(super) scale: f64,
    /// How many weeks of 1000 are spent in another city.
    pub(super) travel_per_mille: u32,
    pub(super) is_human: bool,
    /// Shares in percent, in the order of `BENIGN_TYPES`.
    pub(super) type_shares_percent: [u8; 10],
    pub(super) api_endpoints: [&'static str; 3],
    pub(super) file_folder: &'static str,
}

/// The days on which a user of a role works.
#[derive(Clone, Copy)]
pub(super) enum WorkDays {
    Weekdays,
    /// Four of the five weekdays.
    FourWeekdays,
    /// Five days in a row, of which the first differs by user.
    Rolling,
    All,
}

/// What `type_shares_percent` counts.
pub(super) const BENIGN_TYPES: [EventType; 10] = [
    EventType::LoginSuccess,
    EventType::Logout,
    EventType::MfaSuccess,
    EventType::FileAccess,
    EventType::ApiCall,
    EventType::DbQuery,
    EventType::EmailSend,
    EventType::ConfigChange,
    EventType::AdminChange,
    EventType::FileDownload,
];

// Never zero: every hour must have somebody who could be active in it.
const OFF: f64 = 0.002;
static DAY_SHIFT: [f64; 24] = [
    0.8, 1.0, 1.0, 0.9, 0.5, 0.9, 1.0, 1.0, 0.7, 0.25, 0.08, 0.05, 0.04, 0.03, OFF, OFF, OFF, OFF,
    OFF, OFF, OFF, OFF, 0.01, 0.1,
];
static LONG_DAY_SHIFT: [f64; 24] = [
    0.6, 0.9, 1.0, 0.8, 0.8, 1.0, 1.0, 1.0, 0.9, 0.4, 0.2, 0.25, 0.2, 0.1, 0.02, OFF, OFF, OFF,
    OFF, OFF, OFF, OFF, OFF, 0.02,
];
static STRICT_SHIFT: [f64; 24] = [
    1.0, 1.0, 1.0, 0.9, 0.6, 1.0, 1.0, 0.9, 0.05, OFF, OFF, OFF, OFF, OFF, OFF, OFF, OFF, OFF, OFF,
    OFF, OFF, OFF, OFF, 0.05,
];
static ALWAYS: [f64; 24] = [
    1.0, 1.0, 0.9, 0.9, 1.0, 1.0, 1.0, 0.9, 0.9, 1.0, 1.0, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0, 0.9, 1.0,
    1.0, 1.0, 1.0, 0.9, 1.0,
];

pub(super) static ROLES: [Role; 8] = [
    Role {
        share_percent: 44,
        start_hours: [8, 9, 9],
        type_shares_percent: [14, 8, 7, 24, 17, 3, 21, 1, 0, 5],
        api_endpoints: ["/crm/accounts/", "/erp/invoices/", "/hr/timesheets/"],
        file_folder: "/files/finance/",
        travel_per_mille: 12,
        ..scaled(&DAY_SHIFT, WorkDays::Weekdays, 0.01)
    },
    Role {
        share_percent: 21,
        start_hours: [9, 10, 11],
        type_shares_percent: [10, 3, 6, 14, 42, 12, 6, 4, 0, 3],
        api_endpoints: ["/git/repositories/", "/build/jobs/", "/issues/tickets/"],
        file_folder: "/files/engineering/",
        travel_per_mille: 10,
        ..scaled(&LONG_DAY_SHIFT, WorkDays::Weekdays, 0.06)
    },
    Role {
        share_percent: 10,
        start_hours: [6, 14, 22],
        rotates_weekly: true,
        type_shares_percent: [12, 10, 6, 10, 36, 8, 16, 1, 0, 1],
        api_endpoints: ["/support/tickets/", "/crm/contacts/", "/support/chats/"],
        file_folder: "/files/knowledge/",
        ..scaled(&STRICT_SHIFT, WorkDays::Rolling, 0.004)
    },
    Role {
        share_percent: 5,
        start_hours: [20, 21, 22],
        type_shares_percent: [12, 10, 6, 22, 30, 12, 4, 2, 0, 2],
        api_endpoints: ["/monitor/alerts/", "/warehouse/orders/", "/monitor/hosts/"],
        file_folder: "/files/operations/",
        ..scaled(&STRICT_SHIFT, WorkDays::Rolling, 0.004)
    },
    Role {
        share_percent: 8,
        start_hours: [8, 8, 9],
        type_shares_percent: [16, 6, 9, 14, 24, 1, 24, 1, 0, 5],
        api_endpoints: ["/crm/opportunities/", "/crm/accounts/", "/travel/bookings/"],
        file_folder: "/files/proposals/",
        travel_per_mille: 330,
        ..scaled(&LONG_DAY_SHIFT, WorkDays::Weekdays, 0.05)
    },
    Role {
        share_percent: 4,
        start_hours: [7, 8, 9],
        type_shares_percent: [14, 8, 10, 8, 22, 12, 6, 10, 8, 2],
        api_endpoints: ["/admin/hosts/", "/monitor/alerts/", "/directory/users/"],
        file_folder: "/files/runbooks/",
        travel_per_mille: 15,
        ..scaled(&LONG_DAY_SHIFT, WorkDays::Weekdays, 0.08)
    },
    Role {
        share_percent: 5,
        start_hours: [9, 10, 12],
        type_shares_percent: [18, 12, 12, 20, 22, 4, 8, 0, 0, 4],
        api_endpoints: ["/projects/tasks/", "/git/repositories/", "/hr/timesheets/"],
        file_folder: "/files/projects/",
        ..scaled(&DAY_SHIFT, WorkDays::FourWeekdays, 0.01)
    },
    Role {
        share_percent: 3,
        start_hours: [0, 6, 12],
        is_human: false,
        type_shares_percent: [6, 0, 0, 4, 60, 30, 0, 0, 0, 0],
        api_endpoints: [
            "/internal/queues/",
            "/internal/exports/",
            "/warehouse/orders/",
        ],
        file_folder: "/files/exchange/",
        ..scaled(&ALWAYS, WorkDays::All, 1.0)
    },
];

/// The highest activity of any user in any hour, which bounds the sampling of users.
pub(super) static ACTIVITY_MAX: f64 = {
    let mut highest = 0.0;
    let mut index = 0;
    while index < ROLES.len() {
        // No shift has an hour above 1.
        highest = f64::max(highest, ROLES[index].scale);
        index += 1;
    }
    highest
};

/// A role of which only the times are set.
const fn scaled(shift: &'static [f64; 24], work_days: WorkDays, day_off_share: f64) -> Role {
    let mut shift_hours = 0.0;
    let mut hour = 0;
    while hour < 24 {
        shift_hours += shift[hour];
        hour += 1;
    }
    let n_work_days = match work_days {
        WorkDays::FourWeekdays => 4.0,
        WorkDays::Weekdays | WorkDays::Rolling => 5.0,
        WorkDays::All => 7.0,
    };
    let hours_per_week = shift_hours * (n_work_days + (7.0 - n_work_days) * day_off_share);
    Role {
        share_percent: 0,
        start_hours: [0; 3],
        rotates_weekly: false,
        shift,
        work_days,
        day_off_share,
        scale: 168.0 / hours_per_week,
        travel_per_mille: 0,
        is_human: true,
        type_shares_percent: [0; 10],
        api_endpoints: [""; 3],
        file_folder: "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        assert_eq!(
            ROLES.iter().map(|role| role.share_percent).sum::<u32>(),
            100
        );
        for role in &ROLES {
            let shares = role
                .type_shares_percent
                .iter()
                .map(|&share| u32::from(share));
            assert_eq!(shares.sum::<u32>(), 100, "{}", role.file_folder);
        }
    }
}
