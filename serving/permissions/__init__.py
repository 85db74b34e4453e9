"""Who may see what: the policy, the assignments of accounts to partners, whose data fed which feature."""

__all__: list[str] = []
