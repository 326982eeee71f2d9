//! Mermaid's flowchart.

use std::fmt::Write;

use super::tree::{Kind, Node};

pub(super) fn draw(trees: &[Node]) -> String {
    let mut text = String::from("flowchart LR\n");
    let mut next = 0;
    for tree in trees {
        node(&mut text, tree, &mut next);
    }
    text
}

/// Returns the node's number.
fn node(text: &mut String, node: &Node, next: &mut usize) -> usize {
    let number = *next;
    *next += 1;
    let lines: Vec<String> = node.lines().iter().map(|line| escaped(line)).collect();
    let (open, close) = match node.kind {
        Kind::Link | Kind::Vlan => ("[/", "/]"),
        Kind::Network => ("([", "])"),
        Kind::Endpoint => ("[", "]"),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  n{number}{open}\"{}\"{close}", lines.join("<br>"));
    for child in &node.children {
        let child = self::node(text, child, next);
        let _ = writeln!(text, "  n{number} --- n{child}");
    }
    number
}

/// Mermaid takes entities in quoted text, written with `#`.
fn escaped(line: &str) -> String {
    line.chars()
        .map(|c| match c {
            '"' | '<' | '>' | '&' | '#' | '`' => format!("#{};", u32::from(c)),
            _ => c.to_string(),
        })
        .collect()
}
