"""Fields of answers: a source, and what it means."""

from rest_framework import serializers


class _From:
    """Lets every field name its source, also where it is called the same: DRF forbids the repetition."""

    def bind(self, field_name: str, parent: serializers.Serializer) -> None:
        if self.source == field_name:
            self.source = None
        super().bind(field_name, parent)


class _Text(_From, serializers.CharField):
    def to_representation(self, value: object) -> str | None:
        return str(value) or None


class _Number(_From, serializers.IntegerField):
    pass


class _Flag(_From, serializers.BooleanField):
    pass


def text(source: str, help_text: str) -> serializers.Field:
    """A text; an empty one is left out."""
    return _Text(source=source, help_text=help_text)


def number(source: str, help_text: str) -> serializers.Field:
    return _Number(source=source, help_text=help_text)


def flag(source: str, help_text: str) -> serializers.Field:
    return _Flag(source=source, help_text=help_text)


def computed(help_text: str) -> serializers.SerializerMethodField:
    return serializers.SerializerMethodField(help_text=help_text)
