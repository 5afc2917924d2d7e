"""Pictures of a table: files that a report shows, one function per sort of picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mm_perception.errors import ConfigError
from mm_perception.experiments.pictures.charts import draw_bars, draw_curve
from mm_perception.experiments.pictures.generated import draw_generated, draw_samples
from mm_perception.experiments.pictures.latent import draw_latent_map
from mm_perception.experiments.runner import Outcome

Draw = Callable[[Outcome, Path], dict[str, Path]]

PICTURES: Mapping[str, Draw] = {
    'bars': draw_bars,
    'curve': draw_curve,
    'generated': draw_generated,
    'latent_map': draw_latent_map,
    'samples': draw_samples,
}


def draw_pictures(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """
    Draw all pictures that a table asks for.

    :param folder: for the files; made if it does not exist.
    :returns: files by title.
    :raises ConfigError: if the table asks for an unknown picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for name in outcome.plan.table.pictures:
        if name not in PICTURES:
            raise ConfigError(f'pictures: unknown "{name}"; known: {", ".join(PICTURES)}')
        files |= PICTURES[name](outcome, folder)
    return files
