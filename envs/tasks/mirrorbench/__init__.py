"""MirrorBench: user proxies against real users."""
