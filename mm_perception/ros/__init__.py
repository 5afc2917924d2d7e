"""The nodes, and everything else that knows about ROS 2."""
