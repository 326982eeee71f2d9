//! A picture: links to the left, then their VLANs, then each network as a box that holds its
//! endpoints in a grid, so that hundreds of them stay readable.

use std::fmt::Write;

use super::tree::{Kind, Node};
use crate::cli::units;

const MARGIN: usize = 20;
const LINK_WIDTH: usize = 150;
const LINK_HEIGHT: usize = 54;
/// Between a link and what is on it.
const GAP: usize = 50;
const HEADER: usize = 56;
const CELL_WIDTH: usize = 178;
const CELL_HEIGHT: usize = 52;
/// Around cells and between boxes.
const PAD: usize = 10;

/// Colours for a light and a dark ground; where nothing is known of the reader's, light.
const STYLE: &str = "\
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 13px }
  .small { font-size: 11px; fill: #57606a }
  .drops, .trouble { font-size: 11px; fill: #b3261e }
  .ground { fill: #ffffff }
  .link { fill: #ddf4ff; stroke: #54aeff }
  .network { fill: #f6f8fa; stroke: #afb8c1 }
  .endpoint { fill: #ffffff; stroke: #d0d7de }
  .edge { fill: none; stroke: #8c959f }
  .share { fill: #54aeff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .drops, .trouble { fill: #ff7b72 }
    .ground { fill: #0d1117 }
    .link { fill: #0c2d6b; stroke: #388bfd }
    .network { fill: #161b22; stroke: #3d444d }
    .endpoint { fill: #0d1117; stroke: #3d444d }
    .edge { stroke: #656c76 }
  }
";

pub(super) fn draw(trees: &[Node]) -> String {
    let largest = most(trees, &|node| match node.kind {
        Kind::Network => node.children.len() as u64,
        _ => 0,
    });
    let has_vlans = most(trees, &|node| (node.kind == Kind::Vlan).into()) > 0;
    let mut drawing = Drawing {
        body: String::new(),
        columns: (2..6).find(|n| n * n * 3 >= largest as usize).unwrap_or(6),
        networks_at: MARGIN + (LINK_WIDTH + GAP) * if has_vlans { 2 } else { 1 },
        busiest: most(trees, &|node| match node.kind {
            Kind::Endpoint => node.traffic.total(),
            _ => 0,
        }),
        y: MARGIN,
    };
    for tree in trees {
        drawing.link(tree, MARGIN);
    }
    if trees.is_empty() {
        drawing.text(MARGIN, MARGIN + 14, "small", "no networks");
        drawing.y += 30;
    }
    let width = drawing.networks_at + drawing.network_width() + MARGIN;
    let height = drawing.y - PAD + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n{}</svg>\n",
        drawing.body
    )
}

/// The largest value of a node, wherever it is.
fn most(nodes: &[Node], value: &impl Fn(&Node) -> u64) -> u64 {
    nodes
        .iter()
        .map(|node| value(node).max(most(&node.children, value)))
        .max()
        .unwrap_or(0)
}

struct Drawing {
    body: String,
    /// Endpoints beside each other.
    columns: usize,
    networks_at: usize,
    /// Bytes of the endpoint with most of them.
    busiest: u64,
    /// Where the next box begins.
    y: usize,
}

impl Drawing {
    fn network_width(&self) -> usize {
        self.columns * CELL_WIDTH + PAD
    }

    /// Draws what is on a link beside it. Returns the height at which edges meet the link.
    fn link(&mut self, node: &Node, x: usize) -> usize {
        let y = self.y;
        let port = y + LINK_HEIGHT / 2;
        for child in &node.children {
            let (at, end) = match child.kind {
                Kind::Network => (self.networks_at, self.network(child)),
                _ => (x + LINK_WIDTH + GAP, self.link(child, x + LINK_WIDTH + GAP)),
            };
            self.edge((x + LINK_WIDTH, port), (at, end), child.traffic.total());
        }
        self.y = self.y.max(y + LINK_HEIGHT + PAD);
        self.rect("link", x, y, LINK_WIDTH, LINK_HEIGHT);
        self.text(x + PAD, y + 21, "title", &shortened(&node.title, 18));
        match &node.trouble {
            Some(trouble) => self.text(x + PAD, y + 41, "trouble", trouble),
            None => self.text(x + PAD, y + 41, "small", &node.detail),
        }
        port
    }

    fn network(&mut self, node: &Node) -> usize {
        let (x, y) = (self.networks_at, self.y);
        let rows = node.children.len().div_ceil(self.columns);
        let height = HEADER + rows * CELL_HEIGHT + if rows > 0 { PAD } else { 0 };
        self.rect("network", x, y, self.network_width(), height);
        let letters = self.network_width() / 7;
        self.text(x + PAD, y + 20, "title", &shortened(&node.title, letters));
        let detail = match node.children.len() {
            1 => format!("{}, 1 endpoint", node.detail),
            count => format!("{}, {count} endpoints", node.detail),
        };
        self.text(x + PAD, y + 36, "small", &shortened(&detail, letters));
        self.text(x + PAD, y + 50, "small", &node.traffic.words());
        for (number, endpoint) in node.children.iter().enumerate() {
            let column = number % self.columns;
            let row = number / self.columns;
            self.endpoint(
                endpoint,
                x + PAD + column * CELL_WIDTH,
                y + HEADER + PAD / 2 + row * CELL_HEIGHT,
            );
        }
        self.y = y + height + PAD;
        y + LINK_HEIGHT / 2
    }

    fn endpoint(&mut self, node: &Node, x: usize, y: usize) {
        let (width, height) = (CELL_WIDTH - PAD, CELL_HEIGHT - PAD / 2);
        self.rect("endpoint", x, y, width, height);
        self.text(x + 8, y + 15, "title", &shortened(&node.title, 21));
        self.text(x + 8, y + 29, "small", &shortened(&node.detail, 26));
        let traffic = &node.traffic;
        let words = format!(
            "↓{} ↑{}",
            units::bytes(traffic.rx),
            units::bytes(traffic.tx)
        );
        self.text(x + 8, y + 42, "small", &words);
        if traffic.drops > 0 {
            let drops = format!("✕{}", units::si(traffic.drops as f64));
            self.text(x + width - 48, y + 42, "drops", &drops);
        }
        // A bar at the foot: its share of what the busiest endpoint has.
        if let Some(share) = (width as u64 * traffic.total()).checked_div(self.busiest)
            && share > 0
        {
            self.line(&format!(
                "<rect class=\"share\" x=\"{x}\" y=\"{}\" width=\"{share}\" height=\"3\" rx=\"1.5\"/>",
                y + height - 3
            ));
        }
    }

    /// The more bytes, the thicker: one step for each power of a thousand.
    fn edge(&mut self, from: (usize, usize), to: (usize, usize), bytes: u64) {
        let thickness = 1 + bytes.max(1).ilog10() / 3;
        let middle = to.0 - GAP / 2;
        self.line(&format!(
            "<path class=\"edge\" stroke-width=\"{thickness}\" d=\"M{} {} H{middle} V{} H{}\"/>",
            from.0, from.1, to.1, to.0
        ));
    }

    fn rect(&mut self, class: &str, x: usize, y: usize, width: usize, height: usize) {
        self.line(&format!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>"
        ));
    }

    fn text(&mut self, x: usize, y: usize, class: &str, text: &str) {
        self.line(&format!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>",
            escaped(text)
        ));
    }

    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{line}");
    }
}

/// At most so many letters, the last of which says that some are missing.
fn shortened(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(letters.saturating_sub(1)).collect();
    kept + "…"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::graph::tree::{Traffic, tests::host};

    #[test]
    fn three_hundred_endpoints_fit_a_few_screens() {
        let mut trees = host();
        let endpoint = trees[0].children[0].children[0].children[0].clone();
        for vlan in &mut trees[0].children {
            vlan.children[0].children = vec![endpoint.clone(); 150];
        }
        let drawing = draw(&trees);
        let size = |name: &str| -> usize {
            let from = drawing.split_once(&format!(" {name}=\"")).unwrap().1;
            from.split_once('"').unwrap().0.parse().unwrap()
        };
        assert_eq!(drawing.matches("class=\"endpoint\"").count(), 300);
        assert!(size("width") < 1600, "{}", size("width"));
        assert!(size("height") < 3200, "{}", size("height"));
    }

    #[test]
    fn no_traffic_is_no_bar() {
        let mut trees = host();
        trees[0].children[0].children[0].children.clear();
        trees[0].children[1].children[0].children[0].traffic = Traffic::default();
        assert!(!draw(&trees).contains("class=\"share\""));
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abcde…");
    }
}
