//! Graphviz.

use std::fmt::Write;

use super::tree::{Kind, Node};

pub(super) fn draw(trees: &[Node]) -> String {
    let mut text = String::from(
        "digraph networks {\n  rankdir=LR; ranksep=1; nodesep=0.1;\n  \
         node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=11];\n",
    );
    let mut next = 0;
    for tree in trees {
        node(&mut text, tree, &mut next);
    }
    text.push_str("}\n");
    text
}

/// Returns the node's number.
fn node(text: &mut String, node: &Node, next: &mut usize) -> usize {
    let number = *next;
    *next += 1;
    let lines: Vec<String> = node.lines().iter().map(|line| escaped(line)).collect();
    let look = match node.kind {
        Kind::Link | Kind::Vlan => ", style=filled, fillcolor=aliceblue",
        Kind::Network => ", style=\"rounded,filled\", fillcolor=lightgrey",
        Kind::Endpoint if node.traffic.drops > 0 => ", color=red",
        Kind::Endpoint => "",
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  n{number} [label=\"{}\"{look}];", lines.join("\\n"));
    for child in &node.children {
        let child = self::node(text, child, next);
        let _ = writeln!(text, "  n{number} -> n{child} [dir=none];");
    }
    number
}

fn escaped(line: &str) -> String {
    line.replace('\\', "\\\\").replace('"', "\\\"")
}
