"""Figures of the demonstration, from logs that are made up."""

import pytest

from mm_perception.lab.demo.judge import Criterion
from mm_perception.lab.demo.label_judge import label_criteria, label_figures
from mm_perception.lab.demo.log import (
    Log,
    Phase,
    Received,
    Showing,
    Status,
    gather_ticks,
)
from mm_perception.lab.demo.scores import (
    latency_ms,
    one_sensor_out,
    rate_hz,
    score_phase,
    targets,
    ticks_by_phase,
)

NAMES = ('image', 'sound')
PERIOD_S = 0.1
MS = 1_000_000
SECOND = 1_000 * MS
OUT = Phase(('image',), 0.0, 2.0)


def make_log(shows='33333333337777777777', sound_lags_ticks=2, lose=()):
    """
    Twenty ticks in which only sound is used; digit 3 is shown, from the tenth tick digit 7.

    :param shows: what the generated image of each tick is read as.
    :param sound_lags_ticks: for how long after the change the sound is still of digit 3.
    :param lose: ticks of which the generated image gets lost.
    """
    log = Log(schedule_start_ns=0)
    log.showings += [Showing(0, '3', 0), Showing(1, '7', SECOND)]
    for k in range(20):
        tick_ns = k * 100 * MS + 5 * MS
        sound_ns = 900 * MS if 10 <= k < 10 + sound_lags_ticks else tick_ns - 4 * MS
        age_ms = (tick_ns - sound_ns) / MS
        receipt_ns = tick_ns + 2 * MS
        log.latents.append(Received(receipt_ns, sound_ns))
        if k not in lose:
            entry = Received(receipt_ns + MS, sound_ns, shows=shows[k])
            log.generated['image'].append(entry)
        log.filled['sound'].append(Received(receipt_ns + MS, sound_ns, shows='x'))
        log.statuses.append(
            Status(
                receipt_ns + 2 * MS, sound_ns, {'image': 'stale', 'sound': 'ok'},
                {'image': 9e3, 'sound': age_ms}, frozenset({'sound'}),
            )
        )  # fmt: skip
    return log


def score(log, phase=OUT):
    ticks = gather_ticks(log, NAMES, PERIOD_S)
    return score_phase(phase, ticks_by_phase(log, ticks, [phase])[phase], NAMES, label_figures)


def test_ticks_put_together_what_belongs_together():
    log = make_log(lose={3})
    ticks = gather_ticks(log, NAMES, PERIOD_S)
    assert len(ticks) == 20
    assert [k for k, tick in enumerate(ticks) if 'image' not in tick.generated] == [3]
    shown = [tick.showing and tick.showing.label for tick in ticks]
    assert shown == ['3'] * 10 + [None] * 2 + ['7'] * 8
    assert all('sound' in tick.filled for tick in ticks)


def test_ticks_without_a_stamp_go_by_their_time():
    log = make_log()
    for entry in log.generated['image']:
        entry.stamp_ns = None
    assert all('image' in tick.generated for tick in gather_ticks(log, NAMES, PERIOD_S))


def test_tick_between_two_digits_is_not_settled():
    log = make_log(sound_lags_ticks=0)
    status = log.statuses[10]
    assert gather_ticks(log, NAMES, PERIOD_S)[10].showing.label == '7'
    ages = {'image': (status.tick_ns - 900 * MS) / MS, 'sound': 4.0}
    log.statuses[10] = Status(
        status.receipt_ns, status.stamp_ns, status.states, ages, frozenset(NAMES)
    )
    assert gather_ticks(log, NAMES, PERIOD_S)[10].showing is None


def test_first_frame_of_a_digit_belongs_to_it_whatever_the_rounding():
    log = make_log()
    assert log.showing_at(SECOND - 60_000).label == '7'
    assert log.showing_at(SECOND - MS).label == '3'
    assert log.showing_at(-SECOND) is None


def test_coherence_is_the_share_that_is_read_as_the_true_digit():
    assert score(make_log())['modalities']['image']['coherence'] == 1.0
    result = score(make_log(shows='3' * 12 + '4' * 2 + '7' * 6))
    image = result['modalities']['image']
    assert image['coherence'] == pytest.approx(16 / 18, abs=1e-4)
    assert (image['n'], image['digits'], image['state']) == (18, 2, 'stale')
    assert result['settled_fraction'] == 0.9
    assert set(result['modalities']) == {'image'}


def test_coherence_leaves_out_ticks_that_use_a_sensor_that_is_out():
    log = make_log()
    status = log.statuses[0]
    log.statuses[0] = Status(
        status.receipt_ns, status.stamp_ns, {'image': 'ok', 'sound': 'ok'},
        {'image': 30.0, 'sound': 20.0}, frozenset(NAMES),
    )  # fmt: skip
    image = score(log)['modalities']['image']
    assert image['n'] == 17
    assert image['published_fraction'] == 1.0


def test_published_fraction_counts_latents_without_a_reconstruction():
    assert score(make_log(lose={1, 5}))['modalities']['image']['published_fraction'] == 0.9


def test_scores_of_a_phase_in_which_nothing_came():
    result = score(Log(schedule_start_ns=0))
    image = {'published_fraction': None, 'coherence': None, 'state': None, 'n': 0, 'digits': 0}
    assert result['modalities'] == {'image': image}
    assert result['latents'] == 0


def test_rate_and_latency():
    log = make_log()
    assert rate_hz(log.latents) == pytest.approx(10.0)
    assert rate_hz(log.latents[:1]) is None
    assert latency_ms([]) is None
    # The repeated stamps of the lagging sound count once.
    stale = [Received(5 * SECOND, 4 * SECOND), Received(9 * SECOND, 4 * SECOND)]
    assert latency_ms(stale) == {'p50': 1000.0, 'p99': 1000.0}


def test_targets_by_modality():
    scores = {'coherence': 0.92, 'published_fraction': 1.0}
    made = targets({'image': scores, 'sound': scores}, label_criteria, 10.2, 10.0)
    verdicts = {target.name: target.met for target in made}
    assert verdicts == {
        'coherence of image': False,
        'published fraction of image': True,
        'coherence of sound': True,
        'published fraction of sound': True,
        'latent rate (Hz)': True,
    }
    assert not targets({}, label_criteria, 10.6, 10.0)[0].met
    assert not Criterion('not measured', None, 0.0).met


def test_one_sensor_out_takes_the_phases_with_one_missing():
    phases = [
        {'missing': [], 'modalities': {}},
        {'missing': ['image'], 'modalities': {'image': {'n': 1}}},
        {'missing': ['image', 'sound'], 'modalities': {'image': {'n': 2}, 'sound': {'n': 3}}},
    ]
    assert one_sensor_out(phases) == {'image': {'n': 1}}
