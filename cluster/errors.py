"""The failures of clusters that a person reads."""


class ClusterError(ValueError):
    """A cluster cannot be joined, or cannot do what is asked of it."""


class PlacementError(ClusterError):
    """What was asked for can never be placed."""


class TokenError(ClusterError):
    """A cluster wants a token that this machine does not have, or this machine one that the cluster does not."""
