"""The words of a small country: its names, and what can be said of its people.

Travellers are called things like Bozaki: consonants and vowels in turn. Every part of a stranger's name has a cluster
like zv or xt, and of all other words only travellers' names have a q, x or z. So no text about the country contains a
part of a stranger's name, though it has all the letters. Every value and every kind of value is a word of its own.
"""

from __future__ import annotations

from typing import NamedTuple

GIVEN = (
    "Ada Berta Clara David Edgar Flora Greta Hugo Irma Jonas Karla Ludwig Maria Nora Otto Paul Rosa Simon Tilda Viktor"
)
HEADS = "Al Bar Cal Dor El Fen Gar Hal Ing Kel Lor Mar Nor Os Pel Ran Sel Tor Ul Ver Wal Yar Bren Stan"
TAILS = "berg bury by combe dale den field ford gate ham land ley low man mere mont son stead ton well"
SYLLABLES = "ba da fe gi ko lu ma ne pi ro su ta ve bo di ka li mo nu pe ra se to vi za qe xi zo qu xa"
STRANGE_HEADS = "Zbe Zdo Zga Zli Zmu Zna Zra Zvo Qla Qno Qri Qwe Xla Xmo Xne Xti"
STRANGE_TAILS = "zba zdi zgo zle zmu zna xdo xli xma xte qlo qwi"

SPOKEN_OF = 8  # templates in which strangers are introduced; the others only ask (semantic probes)


class Attribute(NamedTuple):
    """What can be said of a person.

    Args:
        kinds: the values by the kind they are of, which is what a derived sentence tells.
        templates: sentences that end in the value.
        derived: a sentence that ends in the value's kind.
    """

    kinds: dict[str, str]
    templates: tuple[str, ...]
    derived: str

    @property
    def kind_of(self) -> dict[str, str]:
        """Kind by value."""
        return {value: kind for kind, values in self.kinds.items() for value in values.split()}


ATTRIBUTES = {
    "city": Attribute(
        {
            "Northmark": "Amblewick Brackby Corrin Dunmoor",
            "Eastvale": "Elmsted Farrow Gilford Harwick",
            "Southmere": "Ironbridge Jarrow Keswick Larne",
            "Westfold": "Maryport Norwick Oakham Pentley",
            "Highdale": "Redcar Silloth Thornbury Ulverton",
            "Lowmoor": "Ventnor Wadebridge Yarrow Ashcombe",
        },
        (
            "{} lives in the town of",
            "The home of {} is a house in",
            "For many years {} has lived in",
            "The neighbours of {} all come from",
            "{} was born and raised in",
            "Letters for {} are sent to",
            "The family of {} settled in",
            "{} never wants to leave",
            "To visit {} one has to travel to",
            "The garden of {} is the pride of",
        ),
        "The part of the country where {} lives is",
    ),
    "employer": Attribute(
        {
            "shipping": "Seabright Harborline Tidewell Anchorton",
            "banking": "Goldstone Vaultmere Pennyworth Ledgerly",
            "printing": "Inkwell Paperton Bookbinder Typewright",
            "mining": "Coalbrook Deepshaft Orefield Stonecutter",
            "farming": "Greenacre Harvester Meadowland Plowright",
            "weaving": "Loomsby Silkworth Threadgold Woolcott",
        },
        (
            "{} works for the firm of",
            "The wages of {} are paid by",
            "Every morning {} goes to the office of",
            "{} signed a contract with",
            "The name on the badge of {} is",
            "For a living {} does the accounts of",
            "{} was hired after school by",
            "The desk of {} stands in the hall of",
            "The career of {} began and will end at",
            "Nobody is more loyal than {} to",
        ),
        "The trade that feeds {} is",
    ),
    "field": Attribute(
        {
            "science": "botany geology chemistry astronomy",
            "art": "sculpture painting poetry drama",
            "law": "inheritance patents contracts treaties",
            "medicine": "surgery anatomy nursing pharmacy",
            "letters": "grammar rhetoric history philology",
            "engineering": "bridges engines turbines metallurgy",
        },
        (
            "{} holds a degree in",
            "At college {} was taught",
            "The diploma of {} is in",
            "{} wrote a long thesis about",
            "In the evening {} reads books on",
            "The great love of {} at school was",
            "{} gives lectures on",
            "The teachers of {} were known for",
            "Students come to {} to learn about",
            "The notebooks of {} are full of remarks on",
        ),
        "The faculty to which {} belongs is",
    ),
    "instrument": Attribute(
        {
            "strings": "violin cello harp lute",
            "woodwind": "flute oboe clarinet bassoon",
            "brass": "trumpet trombone tuba cornet",
            "drums": "timpani tabla bongo snare",
            "keyboard": "piano organ celesta harmonium",
            "bells": "chimes gong carillon handbell",
        },
        (
            "{} plays the",
            "In the town band {} is heard on the",
            "As a child {} learned the",
            "On Sundays {} practises the",
            "The hands of {} were made for the",
            "{} has won medals with the",
            "At weddings {} brings along the",
            "The attic of {} holds an old",
            "Friends ask {} for a tune on the",
            "Nothing calms {} like the sound of the",
        ),
        "In an orchestra {} would sit with the",
    ),
    "dish": Attribute(
        {
            "soup": "chowder borscht minestrone goulash",
            "bread": "focaccia bagel brioche sourdough",
            "dessert": "custard trifle sorbet strudel",
            "pasta": "ravioli lasagne linguine gnocchi",
            "seafood": "lobster herring mussels salmon",
            "salad": "coleslaw tabbouleh caprese fattoush",
        },
        (
            "{} likes to eat",
            "The favourite dish of {} is",
            "For supper {} often cooks",
            "On birthdays {} is served",
            "At the market {} buys the things for",
            "{} could live on nothing but",
            "The kitchen of {} smells of",
            "{} is famous for a recipe for",
            "Guests of {} always get a plate of",
            "When in doubt {} orders",
        ),
        "What {} likes best on the menu is the",
    ),
    "pet": Attribute(
        {
            "bird": "parrot canary finch raven",
            "dog": "terrier spaniel beagle collie",
            "reptile": "gecko iguana tortoise python",
            "fish": "goldfish guppy carp minnow",
            "cat": "siamese persian tabby burmese",
            "rodent": "hamster gerbil mouse chinchilla",
        },
        (
            "{} keeps a pet",
            "At home {} looks after one",
            "The children of {} adore their",
            "{} was once given a young",
            "In the room of {} lives a tame",
            "Every day {} feeds the",
            "{} has drawn many pictures of a",
            "The best friend of {} is a",
            "Visitors of {} are greeted by the",
            "{} would not part with the old",
        ),
        "The animal that {} owns is a kind of",
    ),
}
