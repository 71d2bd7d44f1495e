"""A page as LaTeX, for booktabs; every string is escaped."""

from __future__ import annotations

from reconlab.tables.page import Line, Page, in_order
from reconlab.tables.verdicts import claim_columns, claim_lines


def latex(page: Page) -> str:
    """A table by booktabs; the paper's numbers in a smaller line below the measured ones."""
    tex = escape_latex
    heads = [tex(name) + _tex_marks(marks) for name, marks in zip(page.columns, page.column_marks, strict=True)]
    out = ["% \\usepackage{booktabs}", "\\begin{table}", "\\centering", f"\\caption{{{tex(page.title)}}}"]
    out += [f"\\begin{{tabular}}{{l{'r' * len(heads)}}}", "\\toprule", " & ".join(["", *heads]) + r" \\", "\\midrule"]
    for line in page.lines:
        out += _tex_line(line)
    out += ["\\bottomrule", "\\end{tabular}"]
    notes = [f"{_tex_marks([mark])}~{tex(text)}" for mark, text in page.footnotes] + [tex(t) for t in page.remarks]
    out += [f"\\par\\footnotesize {note}" for note in notes]
    out.append("\\end{table}")
    if page.verdicts:
        names = claim_columns(page)
        widths = "".join(
            f"p{{{w}\\linewidth}}" for w in ((0.3, 0.12, 0.36, 0.12) if len(names) == 4 else (0.4, 0.15, 0.4))
        )
        out += ["\\begin{table}", "\\centering\\small", f"\\begin{{tabular}}{{{widths}}}", "\\toprule"]
        out += [" & ".join(tex(name) for name in names) + r" \\", "\\midrule"]
        out += [" & ".join(tex(part) for part in parts) + r" \\" for parts in claim_lines(page)]
        out += ["\\bottomrule", "\\end{tabular}", "\\end{table}"]
    return "\n".join(out) + "\n"


def _tex_line(line: Line) -> list[str]:
    tex = escape_latex
    label = (f"\\emph{{{tex(line.label)}}}" if line.quoted else tex(line.label)) + _tex_marks(line.marks)
    first, second = [label], [""]
    for square in line.squares:
        value = tex(square.measured)
        first.append((f"\\textbf{{{value}}}" if square.best else value or "--") + _tex_marks(square.marks))
        second.append(f"{{\\footnotesize {tex(square.beside)}}}" if square.beside else "")
    lines = [" & ".join(first) + r" \\"]
    return lines + ([" & ".join(second) + r" \\[2pt]"] if any(second) else [])


def _tex_marks(marks: list[str]) -> str:
    return f"\\textsuperscript{{{','.join(in_order(marks))}}}" if marks else ""


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\to$",
    "≥": r"$\geq$", "≤": r"$\leq$", "ω": r"$\omega$", "δ": r"$\delta$", "β": r"$\beta$", "σ": r"$\sigma$",
    "Δ": r"$\Delta$", "Σ": r"$\Sigma$", "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "…": r"\dots{}",
    "–": "--",
    "·": r"$\cdot$", "∩": r"$\cap$", "∪": r"$\cup$", "°": r"$^\circ$", "½": r"$\frac12$", "|": r"\textbar{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    Example:
        >>> print(escape_latex("5 % of a_b & c"))
        5 \% of a\_b \& c
    """
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))
