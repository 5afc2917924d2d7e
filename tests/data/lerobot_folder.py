"""Small LeRobot datasets, written as versions 2.1 and 3.0 lay them out."""

import json

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

FPS = 30
CAMERA = 'observation.images.head'
NAMES = ['pan', 'lift', 'elbow', 'grip']
LENGTHS = (31, 40, 22)
SIZE = (48, 64)


def grey(episode, frame):
    """Level of a frame, 0..255, that tells which one it is."""
    return 20 + 60 * episode + frame


def states(episode):
    """Four joints of each frame, ``float32[T, 4]``."""
    frame = np.arange(LENGTHS[episode])
    return np.stack([frame, 100 * episode + frame, np.sin(frame), 0 * frame], 1).astype(np.float32)


def write_video(path, frames):
    """Write grey frames without loss, with few key frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=FPS, options={'qp': '0', 'g': '12'})
        stream.height, stream.width, stream.pix_fmt = *SIZE, 'yuv420p'
        for level in frames:
            picture = np.full((*SIZE, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode())


def table(episode):
    """The columns of one episode."""
    frame = np.arange(LENGTHS[episode])
    columns = {
        'observation.state': pa.FixedSizeListArray.from_arrays(states(episode).ravel(), 4),
        'action': pa.array((states(episode)[:, :2] * 2).tolist(), pa.list_(pa.float32())),
        'effort': pa.array(frame.astype(np.float32)),
        'object': pa.array(['cup' if k < 15 else 'ball' for k in frame]),
        'timestamp': pa.array((frame / FPS).astype(np.float32)),
        'frame_index': pa.array(frame),
        'episode_index': pa.array(np.full(len(frame), episode)),
    }
    return pa.table(columns)


def write_info(path, version, **more):
    """Write ``meta/info.json``."""
    features = {
        'observation.state': {'dtype': 'float32', 'shape': [4], 'names': {'motors': NAMES}},
        'action': {'dtype': 'float32', 'shape': [2], 'names': None},
        'effort': {'dtype': 'float32', 'shape': [1], 'names': None},
        'object': {'dtype': 'string', 'shape': [1], 'names': None},
        CAMERA: {'dtype': 'video', 'shape': [*SIZE, 3], 'names': ['height', 'width', 'channel']},
    }
    info = {'codebase_version': version, 'fps': FPS, 'chunks_size': 1000, 'features': features}
    (path / 'meta').mkdir(parents=True)
    (path / 'meta' / 'info.json').write_text(json.dumps(info | more))


def write_v21(path):
    """A file per episode; the last episode has no video, and meta lists one that is not there."""
    write_info(
        path,
        'v2.1',
        data_path='data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet',
        video_path='videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4',
    )
    lines = [{'episode_index': k, 'length': n} for k, n in enumerate((*LENGTHS, 50))]
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (path / 'meta' / 'episodes.jsonl').write_text(text)
    (path / 'data' / 'chunk-000').mkdir(parents=True)
    for k, length in enumerate(LENGTHS):
        parquet.write_table(table(k), path / f'data/chunk-000/episode_{k:06d}.parquet')
        if k < 2:
            frames = [grey(k, frame) for frame in range(length)]
            write_video(path / f'videos/chunk-000/{CAMERA}/episode_{k:06d}.mp4', frames)
    return path


def write_v30(path):
    """Episodes 0 and 1 share a file of numbers, 0 and 1 one of frames; 2 has its own numbers."""
    write_info(
        path,
        'v3.0',
        data_path='data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
        video_path='videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4',
    )
    begins_s = [0.0, LENGTHS[0] / FPS, 0.0]
    meta = {
        'episode_index': [0, 1, 2],
        'length': list(LENGTHS),
        'data/chunk_index': [0, 0, 0],
        'data/file_index': [0, 0, 1],
        f'videos/{CAMERA}/chunk_index': [0, 0, 0],
        f'videos/{CAMERA}/file_index': [0, 0, 1],
        f'videos/{CAMERA}/from_timestamp': begins_s,
        f'videos/{CAMERA}/to_timestamp': [b + n / FPS for b, n in zip(begins_s, LENGTHS)],
        'stats/effort/min': [[0.0]] * 3,
    }
    for folder in ('meta/episodes/chunk-000', 'data/chunk-000'):
        (path / folder).mkdir(parents=True)
    parquet.write_table(pa.table(meta), path / 'meta/episodes/chunk-000/file-000.parquet')
    together = pa.concat_tables([table(0), table(1)])
    parquet.write_table(together, path / 'data/chunk-000/file-000.parquet')
    parquet.write_table(table(2), path / 'data/chunk-000/file-001.parquet')
    frames = [grey(k, frame) for k in (0, 1) for frame in range(LENGTHS[k])]
    write_video(path / f'videos/{CAMERA}/chunk-000/file-000.mp4', frames)
    return path
