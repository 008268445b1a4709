//! The status of a node as text for people.

use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::{Cell, CellAlignment, Table, presets};

use super::{ChildStatus, NodeStatus};
use crate::observe::problems;
use crate::observe::stats::{self, COMMON, FigureUnit, Figures, InstanceTable};

/// The short table that a start prints.
pub(crate) fn start_table(status: &NodeStatus) -> String {
    let mut table = table(&["instance", "children", "addresses", "pids"]);
    for instance in &status.instances {
        let shared = instance
            .listeners
            .iter()
            .map(|listener| format!("{} {}", listener.label, listener.address));
        let own = instance
            .children
            .iter()
            .filter_map(|child| Some(format!("child {} {}", child.index, child.address.as_ref()?)));
        let pids: Vec<String> = instance
            .children
            .iter()
            .filter_map(|child| child.pid)
            .map(|pid| pid.to_string())
            .collect();
        table.add_row([
            instance.name.clone(),
            instance.children.len().to_string(),
            shared.chain(own).collect::<Vec<_>>().join("\n"),
            pids.join(" "),
        ]);
    }
    let mut text = format!(
        "{} {} serves, pid {}\n{}\n",
        status.name,
        status.version,
        status.pid,
        table.trim_fmt()
    );
    let listeners = status.instances.iter().flat_map(|instance| &instance.listeners);
    for page in listeners.filter_map(|listener| listener.page.as_ref()) {
        text += &format!("open {page}\n");
    }
    text
}

/// The whole status for people.
pub(crate) fn text(status: &NodeStatus, tables: &[InstanceTable]) -> String {
    let uptime = duration(status.uptime_s);
    let mut text = format!(
        "{} {}: {}, pid {}, up {uptime}\n",
        status.name, status.version, status.state, status.pid
    );
    if let Some(reload) = &status.last_reload {
        let age = duration(reload.age_s);
        text += &match &reload.reason {
            None => format!("reloaded {age} ago\n"),
            Some(reason) => format!("the last reload, {age} ago, had no effect: {reason}\n"),
        };
    }
    let mut listeners = table(&["instance", "listener", "address", "page"]);
    for instance in &status.instances {
        for listener in &instance.listeners {
            let page = listener.page.as_deref().unwrap_or_default();
            listeners.add_row([&instance.name, &listener.label, &listener.address, page]);
        }
        for child in &instance.children {
            if let Some(address) = &child.address {
                listeners.add_row([&instance.name, &format!("child {}", child.index), address, ""]);
            }
        }
    }
    if let Some(address) = &status.metrics {
        listeners.add_row(["node", "metrics", address, &format!("http://{address}/metrics")]);
    }
    if listeners.row_count() > 0 {
        text += &format!("{}\n", listeners.trim_fmt());
    }
    text += &format!("{}\n", children(status, tables).trim_fmt());
    for child in status
        .instances
        .iter()
        .flat_map(|instance| instance.children.iter().map(move |child| (instance, child)))
    {
        if let (
            instance,
            ChildStatus {
                last_exit: Some(reason),
                index,
                ..
            },
        ) = child
        {
            text += &format!("{} {index}, last exit: {reason}\n", instance.name);
        }
    }
    for problem in &status.problems {
        text += &format!("now: {problem}\n");
    }
    let master = Figures::from_iter([("lost_log_lines", status.lost_log_lines)]);
    let instances = status
        .instances
        .iter()
        .map(|instance| (&instance.totals, table_of(&instance.name, tables)));
    for (figures, table) in [(&master, COMMON)].into_iter().chain(instances) {
        if let Some(past) = problems::past(figures, &table) {
            text += &format!("since the start: {past}\n");
        }
    }
    text
}

/// The table of an instance. An instance of another version of the program may be unknown.
fn table_of(name: &str, tables: &[InstanceTable]) -> InstanceTable {
    *tables.iter().find(|table| table.name == name).unwrap_or(&COMMON)
}

fn children(status: &NodeStatus, tables: &[InstanceTable]) -> Table {
    let instances = status.instances.iter().map(|instance| table_of(&instance.name, tables));
    let columns = stats::keys(instances, |info| info.column);
    let mut heads = vec!["child", "pid", "state", "uptime", "restarts", "cpu", "memory"];
    heads.extend(&columns);
    let mut table = table(&heads);
    for instance in &status.instances {
        let cells = |figures: &Figures| cells(figures, &columns, &table_of(&instance.name, tables));
        for child in &instance.children {
            let mut row = vec![
                format!("{} {}", instance.name, child.index),
                child.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
                child.state.replace('_', " "),
                duration(child.uptime_s),
                child.restarts.to_string(),
                format!("{:.1}s", child.cpu_s),
                bytes(child.memory_bytes),
            ];
            row.extend(cells(&child.figures));
            add_row(&mut table, row);
        }
        let mut row: Vec<String> = ["", "", "", "", "", ""].map(Into::into).into();
        row.insert(0, format!("{} total", instance.name));
        row[4] = instance.restarts.to_string();
        row.extend(cells(&instance.totals));
        add_row(&mut table, row);
    }
    table
}

/// The figures in their columns; 0 where the instance does not count.
fn cells(figures: &Figures, columns: &[&str], table: &InstanceTable) -> Vec<String> {
    let cell = |column: &&str| {
        let figure = table.figures().find(|(_, info)| info.column == Some(column));
        let Some((_, info)) = figure else {
            return "0".into();
        };
        let value = figures.get(info.name).unwrap_or(0);
        match info.unit {
            FigureUnit::Things => value.to_string(),
            FigureUnit::Bytes => bytes(value),
        }
    };
    columns.iter().map(cell).collect()
}

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn add_row(table: &mut Table, row: Vec<String>) {
    let cells = row.into_iter().enumerate().map(|(column, text)| {
        let side = if matches!(column, 0 | 2) {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        Cell::new(text).set_alignment(side)
    });
    table.add_row(cells);
}

fn bytes(count: u64) -> String {
    ByteSize::b(count).display().iec_short().to_string()
}

fn duration(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    humantime::format_duration(Duration::from_secs(whole))
        .to_string()
        .replace(' ', "")
}
