# ruff: noqa: E501 - a template is one line, however long
"""Neutral clauses by field: facts in the indicative, tips in the imperative; data only.

Every clause starts in lower case and has no end mark, so that a voice can set it inside its own sentence.
Verbs are modal or in the past, so that they agree with one thing and with many.
"""

from __future__ import annotations

FACTS: dict[str, tuple[str, ...]] = {
    "any": (
        "{t} can [take|need] some [time|practice|care]",
        "{t} can look [different|simpler|harder] from [one place to the next|close up|a distance]",
        "[most people|many people|beginners] meet {t} in [daily life|everyday life|school or at home]",
        "the [basics|main parts|first steps] of {t} can be learned in [a week|an hour|a few days]",
        "[good|careful] [preparation|timing] [makes a difference|matters|helps] with {t}",
        "{t} can be [described|explained] in [three|two|a few] [steps|parts]",
        "the [details|results] of {t} [change|vary] with [the season|the place|the material|the people involved]",
    ),
    "food": (
        "{t} should be kept [cool and dry|away from sunlight|in a closed jar]",
        "[heat|slow heat|salt|fresh water] [changes|brings out] the [taste|texture] of {t}",
        "the [taste|flavor] of {t} comes from [good ingredients|slow cooking|a little salt]",
        "{t} will go well with [bread|herbs|lemon|vegetables]",
        "[ten|twenty|five] minutes [are enough|will do] for {t}",
    ),
    "place": (
        "the [weather|light|season] shapes [every visit|a trip] to {t}",
        "[spring|autumn|early morning] is a [quiet|good|mild] time for {t}",
        "[trains|buses|boats|walking paths] [connect|lead to] the places around {t}",
        "the [streets|views|museums] near {t} [draw|attract] many visitors",
        "a [map|guidebook] [shows|covers] the way to {t}",
    ),
    "animal": (
        "{t} need [food, water and rest|space and shelter|a calm place]",
        "[smell|sound|sight|warmth] [guides|matters to] {t} every day",
        "{t} [sleep|rest|feed] at [set times|night|dawn]",
        "[young ones|the young] learn from [older animals|their parents]",
        "{t} can [hear|notice] [small changes|faint sounds] around them",
    ),
    "garden": (
        "{t} need [light, water and good soil|sun in the morning|loose soil]",
        "[roots|leaves|new shoots] [grow|appear] in [spring|mild weather]",
        "[too much water|hard frost|dry wind] can harm {t}",
        "[compost|rain water|shade at noon] [feeds|helps] {t}",
        "{t} will [bloom|grow|recover] after [a few weeks|the last frost]",
    ),
    "tool": (
        "{t} will last longer with [regular care|a little oil|dry storage]",
        "the [handle|moving part|surface] of {t} [wears out|needs care] first",
        "a [clean|dry|steady] [surface|table] [helps|is needed] for {t}",
        "{t} [came into use|spread] in [the last century|many homes] [quite quickly|]",
        "[small parts|the screws|the seams] [should be|must be] checked [once a year|every month]",
    ),
    "science": (
        "{t} can be [measured|observed] with [simple instruments|care and patience]",
        "[scientists|teachers] [explain|describe] {t} with a [model|simple drawing]",
        "[energy|heat|time|motion] plays a part in {t}",
        "[water, air and light|forces and energy] [explain|drive] most of {t}",
        "{t} [follow|obey] the same [laws|patterns] [on every day|all over the world]",
    ),
    "history": (
        "{t} changed [trade|daily life|travel] [in many countries|for a whole century]",
        "[letters|old books|paintings] [tell|record] the story of {t}",
        "[workers|sailors|rulers|merchants] [played a part|had a hand] in {t}",
        "{t} began [long ago|in a small town|with a simple idea]",
        "[museums|schools] [teach|show] {t} with [maps|old objects]",
    ),
    "art": (
        "[rhythm|color|practice|silence] [shapes|matters in] {t}",
        "{t} can [move|calm|surprise] [an audience|a listener|the reader]",
        "[short daily practice|a slow start] [helps|works well] with {t}",
        "the [first lines|opening|ending] of {t} [sets the mood|is remembered longest]",
        "{t} can [sound|look] [new|fresh] [every time|in another room]",
    ),
    "people": (
        "a [calm talk|friendly word|clear request] [helps|works] with {t}",
        "{t} may [want|need] [time to think|someone to listen|a break]",
        "[listening|patience|a smile] [goes a long way|opens doors] with {t}",
        "[trust|respect] grows [slowly|with time] around {t}",
        "[small gifts|short visits|kind notes] [are remembered|count]",
    ),
    "money": (
        "{t} can be [planned|written down|reviewed] [each month|in a simple list]",
        "[small sums|fixed costs|dates] [add up|matter] with {t}",
        "the [cost|price|terms] of {t} [depend on|change with] [the season|demand|the contract]",
        "a [simple list|clear plan|short summary] [covers|helps with] {t}",
        "[comparing offers|checking the dates] [saves|takes] [time|an hour]",
    ),
}

TIPS: dict[str, tuple[str, ...]] = {
    "any": (
        "start with [a small step|the simple part|a short list]",
        "[take notes|make a list|set a date] [before you begin|as you go|]",
        "[try it once|practice a little] [and see what happens|every day|at home]",
        "[read|look at] [the instructions|an example|a guide] [first|before you start]",
        "[check|compare] the result [after a day|with an example|at the end]",
        "[ask|talk to] [a friend|someone with experience] about {t}",
        "[keep {t} simple|go slowly with {t}|plan {t} ahead]",
    ),
    "food": (
        "use [fresh water|a large pot|a sharp knife|low heat]",
        "[add|use] [a pinch of salt|a spoon of oil|fresh herbs]",
        "[taste it|stir it|let it rest] [after five minutes|before serving|twice]",
        "keep it [in the fridge|covered|in a cool place]",
    ),
    "place": (
        "[bring|pack] [water and a map|warm clothes|good shoes|a raincoat]",
        "[book|reserve] [a room|the ticket] [early|in advance]",
        "[go|arrive] [early in the day|on a weekday|in spring]",
        "[walk|take the train] [to the center|along the river]",
    ),
    "animal": (
        "[offer|give] [fresh water|a quiet place|good food]",
        "[move slowly|stay calm|keep a distance]",
        "[watch|observe] [for a few days|in the morning]",
        "[visit|ask] a vet [once a year|if in doubt]",
    ),
    "garden": (
        "[water|check] the soil [in the morning|twice a week]",
        "[cut|remove] [dry leaves|old stems]",
        "[add|use] [compost|mulch|good soil]",
        "[choose|find] a [sunny|sheltered] spot",
    ),
    "tool": (
        "[clean|dry] it [after use|with a soft cloth]",
        "[turn|tighten] the [screws|parts] [gently|by hand]",
        "[test|measure] [twice|before you start]",
        "[use|apply] [a drop of oil|the right size|warm water]",
    ),
    "science": (
        "[draw|sketch] [a diagram|a simple model]",
        "[measure|count] [several times|at the same hour]",
        "[read|study] [a short chapter|one example]",
        "[write down|compare] the [numbers|values]",
    ),
    "history": (
        "[visit|look around] [a museum|an archive]",
        "[read|compare] [old letters|two books]",
        "[draw|make] a [timeline|map]",
        "[begin|start] with [the dates|the main people]",
    ),
    "art": (
        "[practice|repeat] [slowly|ten minutes a day]",
        "[listen to|look at] [a good example|the whole piece]",
        "[record|show] [your work|a first draft]",
        "[use|choose] [simple words|few colors|a slow tempo]",
    ),
    "people": (
        "[listen|speak] [first|calmly]",
        "[write|send] [a short note|a message]",
        "[ask|offer] [a simple question|some help]",
        "[meet|talk] [over tea|in person]",
    ),
    "money": (
        "[write down|add up] [the costs|each item]",
        "[compare|check] [two offers|the dates|the terms]",
        "[set|keep] [a limit|a small reserve]",
        "[read|check] the [contract|summary] [twice|]",
    ),
}
