"""What Flower runs in: our Celery app on the broker of the environment."""

from __future__ import annotations

import os
import sys

from tasks.app import make_app


def main() -> None:
    """Start Flower with the arguments of this process."""
    app = make_app(os.environ["CELERY_BROKER_URL"])
    app.start(argv=["flower", *sys.argv[1:]])


if __name__ == "__main__":
    main()
