"""The nodes, and everything else that knows about ROS 2."""

import sys

from mm_perception.errors import UNUSABLE
from mm_perception.resources import explain_middleware

if reason := explain_middleware():  # else rclpy ends the process from within, at its import
    print(f'error: {reason}', file=sys.stderr)
    sys.exit(UNUSABLE)
