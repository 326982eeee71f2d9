//! The screen of `top`: made for 80 by 24, better on more.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Sparkline, Table, TableState};

use super::state::{HISTORY, State};
use crate::cli::reading::Row;
use crate::cli::units::{bits, bytes, si};
use crate::engine::Rates;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn draw(frame: &mut Frame, state: &State) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(summary(state), head);
    match state.cursor().filter(|_| state.alone) {
        Some(at) => endpoint(frame, body, state, &state.rows[at]),
        None => table(frame, body, state),
    }
    frame.render_widget(keys(state), foot);
}

fn summary(state: &State) -> Line<'static> {
    let rates = || state.rows.iter().filter_map(|row| row.rates);
    let drops: f64 = rates().map(|rates| rates.drops).sum();
    let elsewhere: u64 = state.parents.iter().flat_map(|p| p.drops.values()).sum();
    let mut words = vec![
        Span::styled("ipvlan-ctl top", Style::new().bold()),
        format!(
            "  {} endpoints  in {}bit/s  out {}bit/s  ",
            state.rows.len(),
            bits(rates().map(|rates| rates.rx.bytes).sum()),
            bits(rates().map(|rates| rates.tx.bytes).sum()),
        )
        .into(),
        Span::styled(format!("{} drops/s", si(drops)), alarm(drops > 0.0)),
    ];
    if elsewhere > 0 {
        words.push(format!("  {} on parents", si(elsewhere as f64)).into());
    }
    if state.paused {
        words.push(Span::styled("  paused", Style::new().reversed()));
    }
    words.into()
}

fn keys(state: &State) -> Line<'static> {
    let every = humantime::format_duration(state.interval);
    let text = match state.alone {
        true => format!("q quit  Esc back  ↑↓ next  p pause  +- every {every}"),
        false => format!(
            "q quit  ↑↓ select  Enter details  s sort: {}  p pause  +- every {every}",
            sort_name(state)
        ),
    };
    Line::from(text).style(Style::new().dim())
}

fn sort_name(state: &State) -> String {
    format!("{:?}", state.sort).to_lowercase()
}

fn table(frame: &mut Frame, area: Rect, state: &State) {
    let fixed = [12, 15, 9, 9, 7];
    let history = usize::from(area.width / 6).clamp(8, HISTORY);
    let widths = std::iter::once(Constraint::Fill(1))
        .chain(fixed.map(Constraint::Length))
        .chain([Constraint::Length(history as u16)]);
    let header = [
        "NAME",
        "NETWORK",
        "ADDRESS",
        "IN bit/s",
        "OUT bit/s",
        "DROPS",
        "HISTORY",
    ];
    // One scale for all, so that bars of different rows can be compared.
    let total = |rates: &Rates| rates.rx.bytes + rates.tx.bytes;
    let most = state
        .rows
        .iter()
        .flat_map(|row| state.history(row).take(history))
        .map(total)
        .fold(0.0, f64::max);
    let rows = state.rows.iter().map(|row| {
        let endpoint = &row.stats.endpoint;
        let rate =
            |rate: fn(&Rates) -> f64| row.rates.as_ref().map_or("-".into(), |r| bits(rate(r)));
        let drops = row.stats.figures.dropped();
        let mut bars: Vec<char> = state
            .history(row)
            .take(history)
            .map(|rates| bar(total(rates), most))
            .collect();
        bars.reverse();
        ratatui::widgets::Row::new([
            Cell::from(endpoint.name.clone()),
            Cell::from(row.stats.network.clone()),
            Cell::from(row.addresses()),
            number(rate(|rates| rates.rx.bytes)),
            number(rate(|rates| rates.tx.bytes)),
            number(si(drops as f64)).style(alarm(row.rates.is_some_and(|r| r.drops > 0.0))),
            Cell::from(bars.into_iter().collect::<String>()).style(accent()),
        ])
    });
    let table = Table::new(rows, widths)
        .header(ratatui::widgets::Row::new(header).style(Style::new().bold()))
        .row_highlight_style(Style::new().reversed());
    let mut at = TableState::new().with_selected(state.cursor());
    frame.render_stateful_widget(table, area, &mut at);
    if state.rows.is_empty() {
        let [_, below] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(area);
        frame.render_widget(Paragraph::new("no endpoints"), below);
    }
}

fn number(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn bar(value: f64, most: f64) -> char {
    if value <= 0.0 || most <= 0.0 {
        return ' ';
    }
    let step = (value / most * BARS.len() as f64).ceil() as usize;
    BARS[step.clamp(1, BARS.len()) - 1]
}

fn endpoint(frame: &mut Frame, area: Rect, state: &State, row: &Row) {
    let endpoint = &row.stats.endpoint;
    let figures = &row.stats.figures;
    let [about, rx, tx, below] = Layout::vertical([
        Constraint::Length(7),
        Constraint::Length(4),
        Constraint::Length(4),
        Constraint::Min(3),
    ])
    .areas(area);
    let [drops, peers] =
        Layout::horizontal([Constraint::Length(32), Constraint::Fill(1)]).areas(below);
    let total = |figure: &crate::datapath::Figure, rate: Option<crate::engine::Rate>| {
        let now = rate.map_or(String::new(), |rate| {
            format!(
                "; now {}bit/s, {} packets/s",
                bits(rate.bytes),
                si(rate.packets)
            )
        });
        format!("{} packets, {}{now}", figure.packets, bytes(figure.bytes))
    };
    let line = |label: &str, text: String| {
        Line::from(vec![
            Span::styled(format!("{label:<11}"), Style::new().bold()),
            text.into(),
        ])
    };
    let lines = vec![
        line("id", endpoint.id.short().to_owned()),
        line("network", row.stats.network.clone()),
        line("addresses", row.addresses()),
        line(
            "interface",
            format!("{} in {}", endpoint.ifname, endpoint.netns.display()),
        ),
        line(
            "in",
            total(&figures.total.rx, row.rates.map(|rates| rates.rx)),
        ),
        line(
            "out",
            total(&figures.total.tx, row.rates.map(|rates| rates.tx)),
        ),
    ];
    let block = Block::new().title(Span::styled(endpoint.name.clone(), Style::new().bold()));
    frame.render_widget(Paragraph::new(lines).block(block), about);
    for (title, area, rate) in [
        (
            "in, bit/s",
            rx,
            (|rates| rates.rx.bytes) as fn(&Rates) -> f64,
        ),
        ("out, bit/s", tx, |rates| rates.tx.bytes),
    ] {
        let mut values: Vec<u64> = state
            .history(row)
            .take(area.width.into())
            .map(|rates| (rate(rates) * 8.0) as u64)
            .collect();
        values.reverse();
        let most = values.iter().max().copied().unwrap_or(0);
        let title = format!("{title}, at most {}", si(most as f64));
        let chart = Sparkline::default()
            .block(Block::new().title(title))
            .style(accent())
            .data(values);
        frame.render_widget(chart, area);
    }
    let reasons = figures
        .drops
        .iter()
        .map(|(reason, count)| Line::styled(format!("{count:>9}  {reason}"), alarm(true)));
    list(frame, drops, "dropped".into(), reasons.collect());
    let others = state.rows.iter().filter(|other| {
        let other = &other.stats.endpoint;
        other.network == endpoint.network && other.id != endpoint.id
    });
    let others = others.map(|other| {
        let rate = |rate: fn(&Rates) -> f64| other.rates.map_or("-".into(), |r| bits(rate(&r)));
        let (rx, tx) = (rate(|rates| rates.rx.bytes), rate(|rates| rates.tx.bytes));
        let name = &other.stats.endpoint.name;
        Line::from(format!(
            "{name:<12} {:<15} in {rx:<5} out {tx}",
            other.addresses()
        ))
    });
    let title = format!("peers on {}", row.stats.network);
    list(frame, peers, title, others.collect());
}

/// As many of the lines as there is room for, and how many there are more.
fn list(frame: &mut Frame, area: Rect, title: String, mut lines: Vec<Line>) {
    let block = Block::new().title(Span::styled(title, Style::new().bold()));
    let room = usize::from(block.inner(area).height);
    if lines.is_empty() {
        lines.push("none".into());
    } else if lines.len() > room {
        let shown = room.saturating_sub(1);
        let more = format!("and {} more", lines.len() - shown);
        lines.truncate(shown);
        lines.push(more.into());
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// As <https://no-color.org> has it: set and not empty.
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn accent() -> Style {
    match colours() {
        true => Style::new().fg(Color::Cyan),
        false => Style::new(),
    }
}

fn alarm(on: bool) -> Style {
    match (on, colours()) {
        (false, _) => Style::new(),
        (true, true) => Style::new().fg(Color::Red),
        (true, false) => Style::new().bold(),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::tests::state;
    use super::*;

    fn screen(state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_small_terminal_shows_every_column_and_key() {
        let text = screen(&state(), 80, 24);
        for word in [
            "2 endpoints",
            "db1",
            "db_net",
            "10.0.0.11",
            "1.00M",
            "HISTORY",
            "███",
            "q quit",
            "s sort: rate",
            "every 1s",
        ] {
            assert!(text.contains(word), "{word} in\n{text}");
        }
        assert_eq!(text.lines().count(), 24);
    }

    #[test]
    fn one_endpoint_fills_the_screen() {
        let mut state = state();
        state.alone = true;
        let text = screen(&state, 80, 24);
        for word in [
            "addresses  10.0.0.11",
            "spoofed-source",
            "at most 1.00M",
            "peers on db_net",
            "web1         10.0.0.12       in 8.00k out 0",
            "Esc back",
        ] {
            assert!(text.contains(word), "{word} in\n{text}");
        }
    }

    #[test]
    fn no_terminal_is_too_small() {
        let mut state = state();
        for alone in [false, true] {
            state.alone = alone;
            for (width, height) in [(1, 1), (20, 3), (300, 100)] {
                screen(&state, width, height);
            }
        }
        state.rows.clear();
        assert!(screen(&state, 80, 24).contains("no endpoints"));
    }

    #[test]
    fn bars_are_by_eighths() {
        assert_eq!(
            [bar(0.0, 8.0), bar(0.1, 8.0), bar(8.0, 8.0), bar(1.0, 0.0)],
            [' ', '▁', '█', ' ']
        );
    }
}
