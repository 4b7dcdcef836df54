"""Fields of answers: a source, and what it means."""

from rest_framework import serializers

from extdhcp_site.api.answers import Answer, Computed


class _From:
    """Lets every field name its source, also where it is called the same: DRF forbids the repetition."""

    def bind(self, field_name: str, parent: serializers.Serializer) -> None:
        if self.source == field_name:
            self.source = None
        super().bind(field_name, parent)


class _Text(_From, serializers.CharField):
    def to_representation(self, value: object) -> str | None:
        return str(value) or ("" if self.allow_blank else None)


class _Number(_From, serializers.IntegerField):
    pass


class _Flag(_From, serializers.BooleanField):
    pass


def text(source: str, help_text: str, *, allow_blank: bool = False) -> serializers.Field:
    """A text; an empty one is left out, unless `allow_blank`."""
    return _Text(source=source, help_text=help_text, allow_blank=allow_blank)


def number(source: str, help_text: str) -> serializers.Field:
    return _Number(source=source, help_text=help_text)


def flag(source: str, help_text: str) -> serializers.Field:
    return _Flag(source=source, help_text=help_text)


def computed(help_text: str, *columns: str, entries: type[Answer] | None = None) -> Computed:
    """What the method `get_` and the field's name makes of the object; in a ColumnAnswer of these columns."""
    return Computed(*columns, entries=entries, help_text=help_text)
