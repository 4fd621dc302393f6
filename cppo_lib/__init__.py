"""cppo_lib: Coordinated Pass@K Policy Optimization, the thin library behind the numbered notebooks."""

__version__ = "0.1.0"
