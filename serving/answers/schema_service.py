"""What goes over the wire about the service itself."""

from typing import Literal

from pydantic import ConfigDict, Field

from serving.answers.schema import Strict

__all__ = ["Alive", "Readiness", "ReadinessCheck"]


class Alive(Strict):
    """The process answers."""

    status: Literal["alive"]

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "alive"}]})


class ReadinessCheck(Strict):
    """One thing that the service needs or leans on."""

    name: str = Field(description="What was looked at.", examples=["journal"])
    good: bool
    detail: str = Field(description="What is wrong; empty if nothing is.", examples=[""])


class Readiness(Strict):
    """The service answers; `degraded` if something around it is not as it should be."""

    status: Literal["ready", "degraded"]
    score_set: str = Field(description="The version of the scores that are served.", examples=["20260101T000000000000-0a1b2c3d"])
    checks: list[ReadinessCheck]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "degraded",
                    "score_set": "20260101T000000000000-0a1b2c3d",
                    "checks": [
                        {"name": "scores", "good": True, "detail": ""},
                        {"name": "newest scores", "good": False, "detail": "Newer scores cannot be read; the ones before are served."},
                    ],
                }
            ]
        }
    )
