"""Optimize the text detector and the text recogniser of rapidocr-onnxruntime, and read with both.

    pip install 'actcc[ocr]'
    python optimize_text_models.py --target npu1 --out /tmp/text
    python optimize_text_models.py --exact          # exact rewrites only: no data, no loss

Writes detector.onnx and recogniser.onnx with their plans to --out, then lets RapidOCR read held-out
pages with the original files and with these. Both models keep their dynamic axes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import samples

import actcc

HERE = Path(__file__).resolve().parent
INPUT_SHAPES = {
    "det": (1, 3, samples.PAGE_HEIGHT, samples.PAGE_WIDTH),
    "rec": (1, 3, samples.LINE_HEIGHT, samples.LINE_WIDTH),
}
FILES = {"det": "detector.onnx", "rec": "recogniser.onnx"}
DATA = {"det": ("pages", "held_out_pages"), "rec": ("lines", "held_out_lines")}
METRICS = {"det": "fidelity", "rec": f"{HERE / 'samples.py'}:character_accuracy"}


def optimize(
    name: str, target: str, out: Path, max_drop: str, exact: bool, count: int | None
) -> actcc.Result:
    """Return the result for ``det`` or ``rec``; its file lies in ``out``."""
    data: dict[str, Any] = {}
    if not exact:
        calibration, evaluation = (f"{HERE / 'samples.py'}:{each}" for each in DATA[name])
        data = {"calibration": calibration, "evaluation": evaluation, "metric": METRICS[name]}
    return actcc.optimize(
        samples.model_file(name),
        target,
        output=out / FILES[name],
        budget=actcc.Budget.parse(max_drop=max_drop),
        input_shapes={samples.INPUT: INPUT_SHAPES[name]},
        samples=count,
        **data,
    )


def read_pages(detector: Path, recogniser: Path, drawn: Sequence[samples.Drawn]) -> float:
    """Return the share of characters in [0, 1] that RapidOCR reads right, page by page."""
    from rapidocr_onnxruntime import RapidOCR

    reader = RapidOCR(
        det_model_path=str(detector),
        rec_model_path=str(recogniser),
        det_limit_side_len=samples.SHORTEST_SIDE,
        intra_op_num_threads=1,
    )
    right = total = 0
    for page in drawn:
        found, _ = reader(page.pixels, use_cls=False)
        text = "\n".join(line for _, line, _ in found or ())
        truth = "\n".join(page.lines)
        right += samples.agreement(text, truth)
        total += max(len(text), len(truth))
    return right / total


def report(name: str, result: actcc.Result) -> None:
    """Print what changed and what it gains."""
    latency, accuracy = result.plan.latency, result.plan.accuracy
    print(f"{FILES[name]}: {result.status}, {result.reason}")
    if latency is not None:
        print(f"  latency {100 * latency.ratio:.1f} % of the original's")
    if accuracy is not None:
        print(f"  {accuracy.metric} {accuracy.original:.4f} → {accuracy.result:.4f}")
    for change, sites in result.changes.items():
        print(f"  {sites} × {change}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Optimize RapidOCR's text models and read.")
    parser.add_argument("--target", default="npu1", help="as for actcc optimize")
    parser.add_argument("--out", type=Path, default=Path("text_models"), help="folder to write to")
    parser.add_argument("--max-drop", default="1%", help="of each model's accuracy")
    parser.add_argument("--exact", action="store_true", help="exact rewrites only")
    parser.add_argument("--samples", type=int, help="at most so many of each; all if left out")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        result = optimize(
            name,
            arguments.target,
            arguments.out,
            arguments.max_drop,
            arguments.exact,
            arguments.samples,
        )
        report(name, result)
    drawn = samples.drawn_pages(samples.HELD_OUT_WORDS, 2)
    before = read_pages(samples.model_file("det"), samples.model_file("rec"), drawn)
    after = read_pages(arguments.out / FILES["det"], arguments.out / FILES["rec"], drawn)
    print(f"RapidOCR reads {100 * before:.2f} % → {100 * after:.2f} % of the characters right")


if __name__ == "__main__":
    main()
