"""``python -m interaction_train.tracking.report FOLDER`` reports a run, a killed one too."""

import sys
from pathlib import Path

from interaction_train.tracking.report import write_report

if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python -m interaction_train.tracking.report FOLDER_OF_A_RUN")
    print(f"Report: {write_report(Path(sys.argv[1]))}")
