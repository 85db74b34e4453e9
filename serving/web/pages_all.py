"""All pages, for the application to include."""

from fastapi import APIRouter

from serving.web import (
    pages,
    pages_account,
    pages_appearance,
    pages_book,
    pages_forms,
    pages_models,
    pages_partners,
    pages_retention,
    pages_sign_in,
    pages_track,
    pages_what_if,
)

__all__ = ["PAGES"]

PAGES: tuple[APIRouter, ...] = (
    pages_book.router,
    pages_account.router,
    pages_forms.router,
    pages_what_if.router,
    pages_retention.router,
    pages_partners.router,
    pages_models.router,
    pages_track.router,
    pages.router,
    pages_sign_in.router,
    pages_appearance.router,
)
