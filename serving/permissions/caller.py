"""Callers: the vendor, or one partner."""

from dataclasses import dataclass

from features.errors import ConfigError, explain

__all__ = ["VENDOR", "Caller", "parse_caller"]


@dataclass(frozen=True)
class Caller:
    """Who asks: the vendor (`partner_id` is None) or one partner.

    Examples
    --------
    >>> Caller("p1").name, VENDOR.name
    ('partner:p1', 'vendor')
    """

    partner_id: str | None

    @property
    def is_vendor(self) -> bool:
        """Whether the vendor asks."""
        return self.partner_id is None

    @property
    def name(self) -> str:
        """How the journal calls the caller."""
        return "vendor" if self.partner_id is None else f"partner:{self.partner_id}"


VENDOR = Caller(None)


def parse_caller(text: str) -> Caller:
    """Return the caller that `vendor` or `partner:<partner_id>` names.

    Raises
    ------
    ConfigError
        If the text is neither.

    Examples
    --------
    >>> parse_caller("partner:p1").partner_id
    'p1'
    """
    kind, _, partner_id = text.partition(":")
    if text == "vendor":
        return VENDOR
    if kind == "partner" and partner_id:
        return Caller(partner_id)
    raise ConfigError(explain("this is no caller", given=text, allowed="vendor, or partner:<partner_id>"))
