//! The tables of figures that instances hand in: what each figure is called, and how it is shown.

use super::figure::MOST_FIGURES;
use crate::sys::NoItems;

/// A figure as operators see it.
#[derive(Debug, Clone, Copy)]
pub struct FigureInfo {
    pub(crate) name: &'static str,
    pub(crate) kind: FigureKind,
    pub(crate) metric: &'static str,
    pub(crate) help: &'static str,
    pub(crate) column: Option<&'static str>,
    pub(crate) unit: FigureUnit,
    pub(crate) problem: Option<&'static str>,
    pub(crate) past: Option<&'static str>,
    /// The master counts it for itself as well.
    pub(crate) of_master: bool,
}

/// How a figure changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FigureKind {
    /// It only grows. What children that are gone have counted still counts.
    Counter,
    /// It goes up and down, and ends with its child.
    Gauge,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FigureUnit {
    Things,
    Bytes,
}

impl FigureInfo {
    /// A figure that only grows. Its metric and the metric's help text, one line without a backslash.
    pub const fn counter(metric: &'static str, help: &'static str) -> Self {
        Self::new(FigureKind::Counter, metric, help)
    }

    /// A figure that goes up and down. Its metric and the metric's help text, one line without a backslash.
    pub const fn gauge(metric: &'static str, help: &'static str) -> Self {
        Self::new(FigureKind::Gauge, metric, help)
    }

    const fn new(kind: FigureKind, metric: &'static str, help: &'static str) -> Self {
        Self {
            name: "",
            kind,
            metric,
            help,
            column: None,
            unit: FigureUnit::Things,
            problem: None,
            past: None,
            of_master: false,
        }
    }

    /// The figure has a column in the table of `status`, with this head. Figures of several instances that have the same head
    /// share the column.
    pub const fn column(mut self, head: &'static str) -> Self {
        self.column = Some(head);
        self
    }

    /// The figure is a number of bytes.
    pub const fn bytes(mut self) -> Self {
        self.unit = FigureUnit::Bytes;
        self
    }

    /// While the figure is not 0, `status` tells this problem. `{name}` in the text is the value of another figure of the same
    /// child.
    pub const fn problem(mut self, text: &'static str) -> Self {
        self.problem = Some(text);
        self
    }

    /// Once the figure is not 0, `status` tells this text after its number.
    pub const fn past(mut self, text: &'static str) -> Self {
        self.past = Some(text);
        self
    }

    /// The master counts the figure for itself as well.
    const fn also_of_master(mut self) -> Self {
        self.of_master = true;
        self
    }

    /// The same with the name of the figure's field.
    #[doc(hidden)]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
}

/// An instance, and the figures of its children beside those that every child has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstanceTable {
    /// The instance's name.
    pub(crate) name: &'static str,
    /// The instance's own figures.
    pub(crate) own: &'static [FigureInfo],
}

impl InstanceTable {
    /// The table of an instance with these figures of its own.
    ///
    /// # Panics
    ///
    /// If these are more figures than a child can have.
    pub(crate) fn new(name: &'static str, own: &'static [FigureInfo]) -> Self {
        let figures = CommonFigures::TABLE.len() + own.len();
        assert!(
            figures <= MOST_FIGURES,
            "the instance {name} has {figures} figures, the most is {MOST_FIGURES}"
        );
        Self { name, own }
    }

    /// All figures of a child of the instance, with their places in memory: its own ones first.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (usize, &'static FigureInfo)> + use<> {
        let own = self.own.iter().enumerate();
        let own = own.map(|(index, info)| (CommonFigures::TABLE.len() + index, info));
        own.chain(CommonFigures::TABLE.iter().enumerate())
    }
}

/// The keys that the figures of several instances have, each once, in an order that fits the order of every instance. Keys of an
/// instance that shares none with those before it come last.
pub(crate) fn keys<K: PartialEq>(
    tables: impl IntoIterator<Item = InstanceTable>,
    key: impl Fn(&'static FigureInfo) -> Option<K>,
) -> Vec<K> {
    let mut keys: Vec<K> = Vec::new();
    for table in tables {
        let of_table: Vec<K> = table.figures().filter_map(|(_, info)| key(info)).collect();
        let shares = of_table.iter().any(|key| keys.contains(key));
        let mut next = if shares { 0 } else { keys.len() };
        for key in of_table {
            let at = keys.iter().position(|known| *known == key).unwrap_or_else(|| {
                keys.insert(next, key);
                next
            });
            next = at + 1;
        }
    }
    keys
}

/// Declares the figures of an instance's children: a struct with a [`Figure`] for each, and a constant `TABLE` of them, for
/// [`Instance::figures`]. A child has them with [`Slot::view`]. The field `common` has the figures that every child has.
///
/// A child can have 32 figures in all.
///
/// ```
/// use meepo_node::stats::FigureInfo;
///
/// meepo_node::figures! {
///     /// The figures of an echo child.
///     pub struct EchoFigures {
///         /// Bytes sent back.
///         echoed_bytes: FigureInfo::counter("echo_bytes_total", "Bytes that were sent back.").column("echoed").bytes(),
///     }
/// }
///
/// let figures = EchoFigures::default();
/// figures.echoed_bytes.add(4);
/// assert_eq!((figures.echoed_bytes.get(), EchoFigures::TABLE.len()), (4, 1));
/// ```
///
/// [`Figure`]: crate::stats::Figure
/// [`Instance::figures`]: crate::Instance::figures
/// [`Slot::view`]: crate::stats::Slot::view
#[macro_export]
macro_rules! figures {
    ($(#[$meta:meta])* $vis:vis struct $set:ident { $($(#[$doc:meta])* $name:ident: $info:expr,)* }) => {
        $crate::figures! {
            @common: $crate::stats::CommonFigures => $(#[$meta])* $vis struct $set { $($(#[$doc])* $name: $info,)* }
        }
    };
    (@$first:ident: $row:ty => $(#[$meta:meta])* $vis:vis struct $set:ident { $($(#[$doc:meta])* $name:ident: $info:expr,)* }) => {
        $crate::row_of! {
            $(#[$meta])*
            #[derive(Debug, Default)]
            $crate::stats::Figure => $vis struct $set { $first: $row, $($(#[$doc])* $name,)* }
        }

        impl $set {
            /// The figures, in the order in which they lie in memory.
            $vis const TABLE: &'static [$crate::stats::FigureInfo] = &[$($info.named(stringify!($name))),*];
        }
    };
}

figures! {
    @no_others: NoItems =>
    /// The figures that every child has, whatever its instance.
    pub struct CommonFigures {
        /// Connections that could not be accepted when they came: no descriptor was free.
        failed_accepts: FigureInfo::counter(
            "meepo_failed_accepts_total",
            "Attempts to accept a connection that failed for want of descriptors or memory.",
        )
        .past("accepts failed"),
        /// Listeners that accept no connection now, since no descriptor is free.
        blocked_listeners: FigureInfo::gauge(
            "meepo_blocked_listeners",
            "Listeners that accept nobody for want of descriptors or memory.",
        )
        .problem("no free file descriptors, new connections wait"),
        /// Log lines that could not be written.
        lost_log_lines: FigureInfo::counter("meepo_lost_log_lines_total", "Log lines that could not be written.")
            .past("log lines lost")
            .also_of_master(),
        /// 1 while log lines cannot be written.
        log_fails: FigureInfo::gauge("meepo_log_failing", "1 while log lines cannot be written.")
            .problem("log lines cannot be written")
            .also_of_master(),
    }
}

/// The figures of a process that has no others.
pub(crate) const COMMON: InstanceTable = InstanceTable {
    name: "master",
    own: &[],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_several_instances_keep_the_order_of_each() {
        const fn with(column: &'static str) -> FigureInfo {
            FigureInfo::gauge("", "").column(column)
        }
        const GATEWAY: [FigureInfo; 3] = [with("conns"), with("failed"), with("waiting")];
        const WORKER: [FigureInfo; 3] = [with("conns"), with("failed"), with("errors")];
        const CLOCK: [FigureInfo; 1] = [with("ticks")];
        let tables: [&'static [FigureInfo]; 3] = [&GATEWAY, &WORKER, &CLOCK];
        let tables = tables.map(|own| InstanceTable { name: "", own });
        assert_eq!(
            keys(tables, |info| info.column),
            ["conns", "failed", "errors", "waiting", "ticks"]
        );
    }
}
