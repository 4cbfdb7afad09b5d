"""What an operator can set, all through the environment, prefix `ATELIER_`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import limits
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class SettingsError(ValueError):
    """A variable whose value cannot be used: one line with its name, the value and what is allowed."""


class Settings(BaseSettings):
    """The server's settings; the README lists them with their meaning."""

    model_config = SettingsConfigDict(env_prefix="ATELIER_", frozen=True, extra="ignore")

    models: Path = Field(default=Path("models"), description="the folder with one folder a model")
    load: Annotated[tuple[str, ...], NoDecode] = Field(default=(), description="comma list of tasks or model names; empty: all")
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(default="auto", description="where models run; all but auto are a demand")
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    max_upload_mb: float = Field(default=20, gt=0, le=1024, description="largest request body, in megabytes (10^6 bytes)")
    max_megapixels: float = Field(default=25, gt=0, le=1000, description="largest picture read, in 10^6 pixels")
    max_output_megapixels: float = Field(default=64, gt=0, le=1000, description="largest picture made, in 10^6 pixels")
    max_work_mb: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="uploads, pictures and answers that all requests in work keep together, in megabytes; unset: 2048, or half of a "
        "container's memory where that is less",
    )
    queue_limit: int = Field(
        default=1024, ge=1, le=100_000, description="items that one session runs or keeps waiting before more requests are refused"
    )
    max_batch: int = Field(default=64, ge=1, le=4096, description="most items in one run, below what the manifest allows")
    threads: int | None = Field(default=None, ge=1, le=1024, description="threads of a session; unset: the cores that this process may use")
    run_seconds: float = Field(default=60, gt=0, le=3600, description="longest that one run of a session may take before it is ended")
    body_seconds: float = Field(
        default=20, gt=0, le=3600, description="time for a request to come, and one second more for each 10 kB of its body"
    )
    grace_seconds: float = Field(default=20, ge=0, le=3600, description="time for requests in flight when the server is told to stop")
    gpu_mem_limit: int | None = Field(default=None, ge=1, description="most GPU memory that one session takes, in bytes")
    gpu_runs: int = Field(
        default=1, ge=1, le=2, description="runs of one graph that may be under way at a time on a GPU; two take more memory"
    )
    precision: Literal["float32", "float16"] = Field(
        default="float32", description="float16 runs on a GPU the variants in half precision that manifests list"
    )
    cuda_graphs: bool = Field(default=False, description="capture runs on a GPU as CUDA graphs, for models that run there as a whole")
    cache: Path = Field(default=Path("~/.cache/atelier"), description="the folder in which TensorRT's engines are kept")
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(default=(), description="comma list of keys that may call; empty: anybody may")
    api_keys_file: Path | None = Field(default=None, description="a file with such keys, one a line")
    admin_keys: Annotated[tuple[str, ...], NoDecode] = Field(default=(), description="comma list of keys that may reload models")
    admin_keys_file: Path | None = Field(default=None, description="a file with such keys, one a line")
    rate_limit: str | None = Field(default=None, description="of each key, or without keys of each address, such as 100/minute")
    provenance: bool = Field(default=True, description="mark generated pictures as such in their metadata")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="comma list of origins whose pages may call; * for all"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="one line or one JSON object an event")

    @field_validator("load", "cors_origins", "api_keys", "admin_keys", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = tuple(part.strip() for part in value.split(",") if part.strip())
        if value.strip() and not parts:
            raise ValueError("has nothing between its commas")
        return parts

    @field_validator("api_keys_file", "admin_keys_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                keys = _keys(value)
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from error
            if not keys:
                raise ValueError("has no key in it, and the server would be open to all; leave the variable out if it is to be")
        return value

    @field_validator("cuda_graphs")
    @classmethod
    def _captured(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("provider") == "tensorrt":
            raise ValueError("goes with CUDA: TensorRT captures one batch size for all")
        return value

    @field_validator("rate_limit")
    @classmethod
    def _rate(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                rate = limits.parse(value)
            except ValueError as error:
                raise ValueError("is no rate; a rate is such as 10/second, 100/minute or 5000/hour") from error
            if rate.amount < 1:
                raise ValueError("would refuse everybody; unset, it refuses nobody")
        return value or None

    @model_validator(mode="after")
    def _keys_of_files(self) -> Self:
        for name in ("api_keys", "admin_keys"):
            path: Path | None = getattr(self, f"{name}_file")
            if path is not None:
                keys = _keys(path)
                object.__setattr__(self, name, (*getattr(self, name), *keys))  # frozen from here on
        return self


def _keys(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())


def read(**overrides: Any) -> Settings:
    """Reads the environment; `overrides` (field names) win over it.

    Raises:
        SettingsError: a value that cannot be used.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        variable = f"ATELIER_{str(first['loc'][0]).upper()}"
        allowed = _allowed(str(first["loc"][0]))
        raise SettingsError(f"{variable}={first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}{allowed}") from error


def _allowed(field: str) -> str:
    """The range of a number, from its declaration; for anything else the message has said it."""
    schema = Settings.model_json_schema()["properties"].get(field, {})
    for one in (schema, *schema.get("anyOf", ())):
        low, high = one.get("minimum", one.get("exclusiveMinimum")), one.get("maximum")
        if low is not None:
            above = "above" if "exclusiveMinimum" in one else "from"
            return f" (allowed: {one['type']} {above} {low}{f' to {high}' if high is not None else ''})"
    return ""
